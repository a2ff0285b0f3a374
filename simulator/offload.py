"""KV offload: keys and values in host memory, and the blocks that a decode step misses fetched over the host link.

A GPU that keeps only the blocks in use holds many more sequences, and so runs larger batches; what it misses comes over PCIe,
between the selection of a layer and its attention, or ahead of it where the selection is known early.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple, cast

import msgspec
from msgspec import Struct

from ..facts import UserError
from ..hwspecs import GpuSpec, gpus
from ..workloads import Attention, Model, TokenLayout, models
from ..workloads.layers import head_gemm, layer_ops, weight_bytes
from .choice import choose_kernel
from .graph import TaskGraph
from .predict import simulate
from .question import Question, question
from .setting import Setting
from .side import side_seconds
from .system import Timeline, run

SCHEMA = "simattn.offload/1"

GIB = 2**30


class Decode(Struct, frozen=True, kw_only=True):
    """Decoding at one batch size."""

    batch: int
    step_ms: float
    tokens_per_s: float
    host_link_ms: float
    """Of the step: how long the host link works."""


class Offload(Struct, frozen=True, kw_only=True):
    """Decoding with keys and values in host memory, and on the GPU.

    Attributes
    ----------
    context, budget : int
        Tokens of a sequence, and those that a query attends to.
    resident : Decode or None
        All keys and values on the GPU; None where not even one sequence fits.
    offloaded : Decode
        Only the blocks in use on the GPU.
    break_even_hit : float or None
        Hit rate from which on the offloaded run is the faster one; None where it never is.
    link_bound_below : float
        Hit rate below which the host link, and not the GPU, sets the pace.
    """

    gpu: str
    model: str
    pattern: str
    context: int
    budget: int
    hit_rate: float
    kv_memory_gib: float
    resident: Decode | None
    offloaded: Decode
    speedup: float | None
    break_even_hit: float | None
    link_bound_below: float
    schema: str = SCHEMA

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `simattn offload --json` prints them."""
        plain = cast(dict[str, Any], msgspec.to_builtins(self))
        return {"schema": plain.pop("schema"), **plain}


class Setup(NamedTuple):
    """What stays the same while batch and hit rate vary."""

    spec: GpuSpec
    model: Model
    pattern: str
    context: int
    prefetch: bool
    link_gbps: float
    setting: Setting
    options: dict[str, Any]

    def asked(self, batch: int) -> Question:
        """One decode step of a batch."""
        call = {"batch": batch, "seq_q": 1, "seq_kv": self.context, "phase": "decode"}
        return question(self.pattern, model=self.model.name, **{**self.options, **call})

    def token_bytes(self) -> int:
        """Keys and values of one token, over all layers."""
        problem = self.asked(1).problem
        return self.model.layers * self.model.kv_heads * (problem.head_dim + problem.head_dim_v) * problem.element_bytes


def offload(
    model: str,
    pattern: str,
    hw: str | GpuSpec = "h100",
    *,
    context: int,
    hit_rate: float,
    kv_memory_gib: float | None = None,
    batch: int | None = None,
    prefetch: bool = False,
    link_share: float | None = None,
    setting: Setting = Setting(),  # noqa: B008 (immutable)
    **options: Any,
) -> Offload:
    """Simulate decode steps with keys and values in host memory, beside the same with all of them on the GPU.

    Parameters
    ----------
    model, pattern, hw, options
        As in `predict`; the pattern says how many tokens a step attends to, and what it runs to select them.
    context : int
        Tokens of every sequence.
    hit_rate : float
        Share of the blocks of a step that are on the GPU already.
    kv_memory_gib : float, optional
        Memory for keys and values; by default what the model's weights leave of the GPU.
    batch : int, optional
        Sequences of the offloaded run; by default as many as fit.
    prefetch : bool
        A layer's blocks are known one layer ahead, so that they are fetched under the layer before.
    link_share : float, optional
        Share of the host link's peak that fetching blocks gets; by default that of a large copy.

    Raises
    ------
    UserError
        The GPU has no host link, nothing fits, or a number is out of range.
    """
    spec = gpus.load(hw) if isinstance(hw, str) else hw
    if spec.link.host is None:
        raise UserError(f"GPU {spec.name} has no host link")
    if not 0 <= hit_rate <= 1:
        raise UserError(f"hit_rate must lie in 0..1, got {hit_rate}")
    if link_share is not None and not 0 < link_share <= 1:
        raise UserError(f"link_share must lie between 0 and 1, got {link_share}")
    known = models.load(model)
    rate = spec.link.host.gbps * (link_share or spec.link.host.eff or 1.0)
    setup = Setup(spec, known, pattern, context, prefetch, rate, setting, options)
    memory = kv_memory_gib if kv_memory_gib is not None else _left(spec, known)
    budget = _budget(setup)
    fits_resident = int(memory * GIB // (context * setup.token_bytes()))
    fits = batch or int(memory * GIB // (budget * setup.token_bytes()))
    if fits < 1:
        raise UserError(f"{memory:.1f} GiB do not hold the {budget:,} tokens of one sequence ({setup.token_bytes():,} B a token)")
    resident = _decode(setup, _layer(setup, fits_resident), fits_resident, 0.0) if fits_resident else None
    layer = _layer(setup, fits)
    missing_all = fits * budget * setup.token_bytes() / known.layers

    def at(hit: float) -> Decode:
        return _decode(setup, layer, fits, (1 - hit) * missing_all)

    offloaded, wanted, free = at(hit_rate), resident.tokens_per_s if resident else 0.0, at(1.0).step_ms
    return Offload(
        gpu=spec.name,
        model=known.name,
        pattern=setup.asked(1).pattern.name,
        context=context,
        budget=budget,
        hit_rate=hit_rate,
        kv_memory_gib=memory,
        resident=resident,
        offloaded=offloaded,
        speedup=offloaded.tokens_per_s / wanted if wanted else None,
        break_even_hit=_lowest(lambda hit: at(hit).tokens_per_s >= wanted),
        link_bound_below=_lowest(lambda hit: at(hit).host_link_ms <= free) or 0.0,
    )


class Layer(NamedTuple):
    """Seconds of one layer of a decode step on the GPU."""

    before: float
    """Projections of the new token."""
    select: float
    """Kernels beside the attention."""
    attention: float
    after: float


def decode_step(layers: int, layer: Layer, fetch: float, logits: float, *, prefetch: bool) -> TaskGraph:
    """The task graph of one decode step.

    Parameters
    ----------
    layers : int
        Layers, all alike.
    fetch : float
        Seconds that the host link needs for what one layer misses.
    logits : float
        Seconds of what comes after the last layer.
    prefetch : bool
        A layer's blocks are chosen one layer ahead.

    Examples
    --------
    >>> layer = Layer(1e-5, 1e-5, 2e-5, 4e-5)
    >>> [round(run(decode_step(10, layer, 5e-5, 0.0, prefetch=early)).seconds * 1e6) for early in (False, True)]
    [1300, 850]
    """
    graph = TaskGraph()
    chosen: int | None = None
    for number in range(layers):
        graph.add(f"layer {number} projections", "gpu", layer.before)
        selected = graph.add(f"layer {number} selection", "gpu", layer.select)
        if fetch:
            known = chosen if prefetch and chosen is not None else selected
            fetched = [graph.add(f"layer {number} blocks", "from host", fetch, [known])]
        else:
            fetched = []
        graph.add(f"layer {number} attention", "gpu", layer.attention, fetched)
        graph.add(f"layer {number} feed-forward", "gpu", layer.after)
        chosen = selected
    graph.add("logits", "gpu", logits)
    return graph


def _decode(setup: Setup, layer: Layer, batch: int, missing: float) -> Decode:
    """A decode step that fetches `missing` bytes a layer."""
    logits = head_gemm(setup.model, batch=batch)
    last = side_seconds(setup.spec, logits, None, setup.setting.clock) if logits else 0.0
    link = setup.spec.link.host
    assert link is not None
    fetch = missing / (setup.link_gbps * 1e9) + (link.latency_us or 0.0) * 1e-6 if missing else 0.0
    timeline: Timeline = run(decode_step(setup.model.layers, layer, fetch, last, prefetch=setup.prefetch))
    busy = timeline.busy_seconds().get("from host", 0.0)
    return Decode(batch=batch, step_ms=timeline.seconds * 1e3, tokens_per_s=batch / timeline.seconds, host_link_ms=busy * 1e3)


def _layer(setup: Setup, batch: int) -> Layer:
    """One layer of a decode step of a batch."""
    asked = setup.asked(batch)
    found = simulate(asked, setup.spec, setting=setup.setting)
    tiling = choose_kernel(setup.spec, asked.problem, "dense").tiling
    ops = layer_ops(setup.model, TokenLayout(grid=(setup.context,), queries=1), tiling, batch=batch)
    first, *others = (side_seconds(setup.spec, op, None, setup.setting.clock) for op in ops if not isinstance(op, Attention))
    return Layer(first, found.stages["side"] - found.stages["launch"], found.stages["launch"], sum(others))


def _budget(setup: Setup) -> int:
    """Tokens that a query attends to."""
    asked = setup.asked(1)
    tiling = choose_kernel(setup.spec, asked.problem, asked.pattern.family.mask_class()).tiling
    plan = asked.pattern.plan(asked.problem, asked.layout, lambda mask_class, kernel: tiling)
    pairs = sum(op.schedule.pairs for op in plan if isinstance(op, Attention))
    return max(1, round(pairs / asked.problem.q_heads))


def _left(spec: GpuSpec, model: Model) -> float:
    """GiB that the weights of a model leave."""
    if spec.mem.dram.capacity_gib is None:
        raise UserError(f"the memory of GPU {spec.name} is not known: give kv_memory_gib")
    has, weights = spec.mem.dram.capacity_gib, weight_bytes(model) / GIB
    if has <= weights:
        raise UserError(f"the weights of {model.name} need {weights:.0f} GiB, {spec.name} has {has:g}")
    return has - weights


def _lowest(holds: Callable[[float], bool]) -> float | None:
    """The lowest hit rate at which something holds that holds at all higher ones, to a thousandth; None where it never does."""
    if not holds(1.0):
        return None
    low, high = 0.0, 1.0
    if holds(low):
        return low
    while high - low > 1e-3:
        middle = (low + high) / 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high
