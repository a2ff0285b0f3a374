"""A point of a sweep as a row of its answer: columns with their types and units."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, Literal, NamedTuple

import msgspec

from ..facts import Document, UserError, convert
from ..facts.shelf import layer
from ..hwspecs import GpuSpec
from ..simulator import Prediction, choose_kernel, predict, question
from ..simulator.waterfall import STAGES
from ..workloads import systems
from .space import Point
from .spec import PROBLEM, SETTING, SweepSpec, Value, text_of

Type = Literal["int", "float", "text", "bool"]
Row = dict[str, Any]


class Column(NamedTuple):
    """A column of the answer."""

    name: str
    type: Type
    unit: str = ""
    of: Callable[[Prediction], Any] | None = None
    """Its value; of the point itself where there is none."""


def _problem(name: str, type: Type, unit: str = "") -> Column:
    return Column(name, type, unit, lambda p: p.problem[name])


def _stage(place: int, name: str) -> Column:
    return Column(f"{name}_ms", "float", "ms", lambda p: p.waterfall[place].latency_ms)


COLUMNS = (
    Column("point", "int"),
    Column("pattern", "text"),
    Column("gpu", "text", of=lambda p: p.gpu),
    Column("kernel", "text", of=lambda p: p.kernel),
    Column("error", "text"),
    Column("latency_ms", "float", "ms", lambda p: p.latency_ms),
    Column("latency_ms_low", "float", "ms", lambda p: p.latency_ms_low),
    Column("latency_ms_high", "float", "ms", lambda p: p.latency_ms_high),
    Column("speedup", "float", "1", lambda p: p.speedup),
    Column("dense_kernel", "text", of=lambda p: p.dense.kernel),
    Column("dense_ms", "float", "ms", lambda p: p.dense.latency_ms),
    Column("tflops", "float", "TFLOP/s", lambda p: p.tflops),
    Column("bound_flop", "float", "1", lambda p: p.bounds.flop),
    Column("bound_tile_worst", "float", "1", lambda p: p.bounds.tile_worst),
    Column("bound_tile_mean", "float", "1", lambda p: p.bounds.tile_mean),
    Column("density_pairs", "float", "1", lambda p: p.density.pairs),
    Column("density_tiles", "float", "1", lambda p: p.density.tiles),
    Column("block_size", "int", "tokens", lambda p: p.blocks and p.blocks.size),
    Column("blocks_active", "int", "blocks", lambda p: p.blocks and p.blocks.active),
    Column("blocks_total", "int", "blocks", lambda p: p.blocks and p.blocks.total),
    Column("tiles_visited", "int", "tiles", lambda p: p.tiles.visited),
    Column("tiles_full", "int", "tiles", lambda p: p.tiles.full),
    Column("tiles_partial", "int", "tiles", lambda p: p.tiles.partial),
    Column("tiles_dense", "int", "tiles", lambda p: p.tiles.dense),
    Column("q_tiles", "int", "tiles", lambda p: p.tiles.q_tiles),
    Column("q_tile", "text", "tokens", lambda p: p.q_tile),
    Column("kv_tile", "text", "tokens", lambda p: p.kv_tile),
    Column("ctas_per_sm", "int", "CTAs", lambda p: p.attention[0].ctas_per_sm),
    Column("side_ms", "float", "ms", lambda p: sum(op.latency_ms for op in p.side)),
    *(_stage(i, name) for i, name in enumerate(STAGES[:-1])),
    Column("limiter", "text", of=lambda p: p.limiter),
    Column("validity", "text", of=lambda p: p.provenance.validity),
    Column("calibrated", "bool", of=lambda p: p.provenance.calibrated_on is not None),
    Column("exactness", "text", of=lambda p: p.provenance.exactness),
    _problem("batch", "int"),
    _problem("q_heads", "int"),
    _problem("kv_heads", "int"),
    _problem("seq_q", "int", "tokens"),
    _problem("seq_kv", "int", "tokens"),
    _problem("head_dim", "int"),
    _problem("head_dim_v", "int"),
    _problem("dtype", "text"),
    _problem("phase", "text"),
    Column("grid", "text", "tokens", lambda p: tuple(p.problem["grid"])),
    _problem("text", "int", "tokens"),
    _problem("causal", "text"),
    Column("fidelity", "text", of=lambda p: p.fidelity),
    Column("clock", "text", of=lambda p: p.clock),
    Column("seed", "int", of=lambda p: p.provenance.seed),
)


def columns(spec: SweepSpec) -> tuple[Column, ...]:
    """The columns of a sweep: what varies comes behind the names, unless the answer has a column of it anyway."""
    known = {column.name for column in COLUMNS}
    own = []
    for name, values in spec.vary.items():
        if name not in known:
            listed = values if isinstance(values, tuple) else (values.low, values.high, values.step or 0)
            own.append(Column(name, _type_of(listed)))
    return (*COLUMNS[:4], *own, *COLUMNS[4:])


def _type_of(values: Sequence[Value]) -> Type:
    kinds = {type(value) for value in values}
    if kinds == {int}:
        return "int"
    if kinds == {bool}:
        return "bool"
    return "float" if kinds <= {int, float} else "text"


def evaluate(points: Sequence[Point], specs: dict[str, tuple[str, bytes]], spec: SweepSpec) -> list[Row]:
    """The rows of points, those that fail included: what a worker does.

    Parameters
    ----------
    specs : dict
        GPUs of the sweep, by name: their hash, and themselves as JSON, so that a worker elsewhere needs no files of them.
    """
    table = columns(spec)
    return [_row_of(point, _gpu(*specs[point.hw]), table, spec.seed) for point in points]


def _row_of(point: Point, gpu: GpuSpec, table: Sequence[Column], seed: int) -> Row:
    """The row of one point; where there is no answer, `error` says why, and the other columns what was asked."""
    asked: dict[str, Any] = {"point": point.number, "pattern": point.pattern, "gpu": gpu.name, "kernel": point.kernel}
    row: Row = dict.fromkeys(column.name for column in table)
    row |= {name: value for name, value in {"seed": seed, **asked, **point.options}.items() if name in row}
    try:
        answer = _predicted(point, gpu, seed)
    except Exception as error:  # a sweep goes on, whatever a point does
        known = isinstance(error, UserError)
        row["error"] = " ".join((str(error) if known else f"{type(error).__name__}: {error}").split())
    else:
        row |= {column.name: column.of(answer) for column in table if column.of is not None}
    return {column.name: _cell(row[column.name], column.type) for column in table}


def _cell(value: Any, type: Type) -> Any:
    if value is None:
        return None
    if type == "text":
        return text_of(tuple(value) if isinstance(value, list) else value)
    if isinstance(value, tuple | str):
        return None  # what was asked of a failed point may be of another type
    return {"int": int, "float": float, "bool": bool}[type](value)


def _predicted(point: Point, spec: GpuSpec, seed: int) -> Prediction:
    options, params, hardware = divided(point.options)
    if hardware:
        spec = _changed(msgspec.json.encode(spec), msgspec.json.encode(hardware))
    options = {"seed": seed, **options}
    if systems.load(point.pattern).family == "listed" and "block" in params and not options.keys() & {"q_tile", "kv_tile"}:
        options |= _no_larger(point, spec, options, params)
    return predict(point.pattern, spec, kernel=point.kernel, params=params, **options)


def _no_larger(point: Point, spec: GpuSpec, options: dict[str, Any], params: Document) -> dict[str, int]:
    """Tiles of the kernel, none larger than the blocks of a user's mask: a larger one would visit what the blocks leave out."""
    asked = question(point.pattern, params=params, **{name: value for name, value in options.items() if name in PROBLEM})
    tiling = choose_kernel(spec, asked.problem, asked.pattern.family.mask_class(), 1, point.kernel).tiling
    block = params["block"]
    if not isinstance(block, int) or not block:
        return {}
    return {"q_tile": min(block, tiling.q_rows), "kv_tile": min(block, tiling.kv_rows)}


def divided(options: dict[str, Value]) -> tuple[dict[str, Any], Document, Document]:
    """Options of `predict`, parameters of the pattern, and tables of the GPU."""
    named: dict[str, Any] = {}
    params: Document = {}
    hardware: Document = {}
    for name, value in options.items():
        if name.startswith("hw."):
            *path, leaf = name.removeprefix("hw.").split(".")
            table = hardware
            for key in path:
                table = table.setdefault(key, {})
            table[leaf] = value
        elif name in SETTING or (name in PROBLEM and not (name == "causal" and isinstance(value, tuple))):
            named[name] = value
        else:
            params[name] = value
    return named, params, hardware


@lru_cache(maxsize=4096)
def _changed(content: bytes, changes: bytes) -> GpuSpec:
    """A GPU with other numbers."""
    document = msgspec.json.decode(content)
    return convert(layer(document, msgspec.json.decode(changes)), GpuSpec, f"GPU {document['name']}")


@lru_cache(maxsize=256)
def _gpu(spec_hash: str, content: bytes) -> GpuSpec:
    """A GPU that came with the points: the same object every time, so that what is known about it is found again."""
    return msgspec.json.decode(content, type=GpuSpec)
