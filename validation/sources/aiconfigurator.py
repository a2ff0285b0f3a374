"""Measured attention tables of the package `aiconfigurator-core` (NVIDIA, Apache-2.0): one for each GPU, framework and version.

The times are of a framework's attention call as serving makes it, a mean over graph replays where capture works: the launch and,
but for encoders, the write of the KV cache are part of them. What is kept, and how it is read:

* Rows whose operands and KV cache are both bf16, or both fp8.
* Only rows of a prefill that start at token 0. `step` counts cached tokens; it is 0 in every prefill table, so that nothing says
  whether a prefix would be part of `isl`. In a decode, a query sees the `step` cached tokens and itself.
* A shape that was measured more than once is one row with the median time: nothing in the tables prefers one run to another.
* Rows that `aiconfigurator.toml` lists are marked suspect, not dropped, so that a comparison says why it skips them.

What else the package holds, and why it is not read, is listed there too.
"""

from __future__ import annotations

import tomllib
from collections import defaultdict
from fnmatch import fnmatchcase
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from statistics import median
from typing import Literal, NamedTuple

import msgspec
from msgspec import Struct

from ...facts import UserError, unknown_name
from ..measurement import Measurement

Op = Literal["attention", "encoder_attention", "generation_attention"]


class _Kind(NamedTuple):
    """How the tables of an operation are kept."""

    folder: str
    file: str
    mask: str
    phase: str
    suffix: str


_KINDS: dict[Op, _Kind] = {
    "attention": _Kind("attention", "context_attention_perf.parquet", "causal", "prefill", ""),
    "encoder_attention": _Kind("encoder_attention", "encoder_attention_perf.parquet", "dense", "prefill", "/encoder"),
    # A query at the end of its keys sees all of them.
    "generation_attention": _Kind("attention", "generation_attention_perf.parquet", "dense", "decode", "/decode"),
}
_DTYPES = {"bf16": "bfloat16", "fp8": "fp8"}
_MISSING = "the measured tables of aiconfigurator are not installed: pip install 'simattn[validation]'"


class Table(NamedTuple):
    """One table: attention of a prefill (causal), of an encoder (dense) or of a decode."""

    gpu: str
    framework: str
    version: str
    op: Op = "attention"
    dtype: str = "bf16"

    def __str__(self) -> str:
        return "/".join(self[:3]) + _KINDS[self.op].suffix + ("" if self.dtype == "bf16" else f"/{self.dtype}")

    @staticmethod
    def of(name: str) -> Table:
        """The table of a name: GPU/FRAMEWORK/VERSION, with /encoder, /decode or /fp8 behind it.

        >>> Table.of("h100_sxm/vllm/0.24.0/decode").op
        'generation_attention'
        """
        ops = {kind.suffix[1:]: op for op, kind in _KINDS.items()}
        parts, dtype = name.split("/"), "bf16"
        if parts[-1] in _DTYPES:
            dtype = parts.pop()
        op = ops.get("/".join(parts[3:]))
        if len(parts) < 3 or op is None:
            raise UserError(f"expected GPU/FRAMEWORK/VERSION, with /encoder, /decode or /fp8 behind it, got {name!r}")
        gpu, framework, version = parts[:3]
        return Table(gpu, framework, version, op, dtype)

    @property
    def path(self) -> Path:
        """Its file, below the data folder."""
        return Path(self.gpu, _KINDS[self.op].folder, self.framework, self.version, _KINDS[self.op].file)


class _Row(Struct):
    """The columns that are read. Tables of frameworks without windows lack `window_size`, encoders have one KV head a head."""

    kernel_source: str
    batch_size: int
    isl: int
    num_heads: int
    head_dim: int
    attn_dtype: str
    latency: float
    num_key_value_heads: int = 0
    kv_cache_dtype: str = ""
    window_size: int = 0
    step: int = 0


class _Suspicion(Struct, forbid_unknown_fields=True):
    """Rows that are not what they say: which, why, and who found it."""

    table: str
    why: str
    source: str
    kernel: str = "*"
    pattern: str = "*"

    def holds(self, table: Table, kernel: str, pattern: str) -> bool:
        name = "/".join(table[:3])
        return all(map(fnmatchcase, (name, kernel, pattern), (self.table, self.kernel, self.pattern)))


@cache
def _suspicions() -> list[_Suspicion]:
    text = (Path(__file__).parent / "aiconfigurator.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text)["suspect"], list[_Suspicion])


def _data() -> Path:
    """The folder of the tables. Found without importing the package, whose modules load a compiled library."""
    spec = find_spec("aiconfigurator_core")
    if spec is None or not spec.submodule_search_locations:
        raise UserError(_MISSING)
    return Path(spec.submodule_search_locations[0], "systems", "data")


def tables(op: Op = "attention") -> list[Table]:
    """Every table of an operation, in the order of their names.

    Raises
    ------
    UserError
        The package is not installed.
    """
    data, kind = _data(), _KINDS[op]
    found = (path.relative_to(data).parts for path in data.glob(f"*/{kind.folder}/*/*/{kind.file}"))
    return sorted(Table(gpu, framework, version, op) for gpu, _, framework, version, _ in found)


def read_table(gpu: str, framework: str, version: str, op: Op = "attention", dtype: str = "bf16") -> list[Measurement]:
    """The rows of one table, each shape once, in the order of the file.

    Parameters
    ----------
    gpu, framework, version : str
        As `tables` names them: "h100_sxm", "vllm", "0.24.0".
    op : str
        "attention" for causal prefill, "encoder_attention" for dense attention without a KV cache, "generation_attention" for
        one new token against a KV cache.
    dtype : str
        "bf16" or "fp8", of queries and KV cache alike.

    Raises
    ------
    UserError
        The package or pyarrow is not installed, there is no such table, or its columns are not those of 0.12.
    """
    table = Table(gpu, framework, version, op, dtype)
    path = _data() / table.path
    if not path.is_file():
        raise unknown_name("table", str(table), map(str, tables(op)))
    try:
        parquet = import_module("pyarrow.parquet")  # by name: pyarrow is optional, and untyped
    except ImportError:
        raise UserError(_MISSING) from None
    try:
        rows = msgspec.convert(parquet.read_table(path).to_pylist(), list[_Row])
    except msgspec.ValidationError as error:
        raise UserError(f"{path}: {error}") from None
    return _measurements(table, rows)


def _measurements(table: Table, rows: list[_Row]) -> list[Measurement]:
    runs: dict[str, Measurement] = {}
    times: defaultdict[str, list[float]] = defaultdict(list)
    wanted = _DTYPES[table.dtype]
    for row in rows:
        cache = row.kv_cache_dtype or row.attn_dtype
        if row.attn_dtype == cache == wanted and (row.step == 0 or table.op == "generation_attention"):
            run = _measurement(table, row)
            runs.setdefault(run.id, run)
            times[run.id].append(row.latency)
    return [msgspec.structs.replace(run, latency_ms=median(times[run.id])) for run in runs.values()]


def _measurement(table: Table, row: _Row) -> Measurement:
    kind = _KINDS[table.op]
    # The sweeps behind the tables write 0 for "as many KV heads as heads".
    kv_heads = row.num_key_value_heads or row.num_heads
    window, keys = row.window_size, row.isl + row.step
    pattern = "sliding_window" if window else kind.mask
    name = f"aiconfigurator/{table}"
    shape = f"b{row.batch_size}-n{keys}-h{row.num_heads}-kv{kv_heads}-d{row.head_dim}-w{window}"
    return Measurement(
        id=f"{name}/{row.kernel_source}/{shape}",
        table=name,
        gpu=table.gpu,
        # The framework is part of the label: the same kernel comes with other side kernels and another launch in each.
        kernel=f"{table.framework}/{row.kernel_source}",
        phase=kind.phase,
        dtype=table.dtype,
        source=f"aiconfigurator-core, systems/data/{table.path.as_posix()}",
        batch=row.batch_size,
        q_heads=row.num_heads,
        kv_heads=kv_heads,
        seq_q=row.isl,
        seq_kv=keys,
        head_dim=row.head_dim,
        pattern=pattern,
        # Keys seen, self included: the collectors hand the kernels window - 1 keys to the left.
        pattern_params={"window": window} if window else {},
        suspect=any(rule.holds(table, row.kernel_source, pattern) for rule in _suspicions()),
    )
