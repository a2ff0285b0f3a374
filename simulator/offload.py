"""KV offload: keys and values in host memory, and the blocks that a decode step misses fetched over the host link.

A GPU that keeps only the blocks in use holds many more sequences, and so runs larger batches; what it misses comes over PCIe,
between the selection of a layer and its attention, or ahead of it where the selection is known early.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import msgspec
from msgspec import Struct

from ..facts import UserError
from ..hwspecs import GpuSpec, gpus
from ..workloads import models
from .decode import GIB, Decoder, Layer, decode_step
from .setting import Setting
from .system import run

SCHEMA = "simattn.offload/1"


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
    link_bound_batch : int or None
        Sequences from which on it does at the hit rate given; None where it does not even at the batch of the offloaded run.
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
    link_bound_batch: int | None
    schema: str = SCHEMA

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `simattn offload --json` prints them."""
        plain = cast(dict[str, Any], msgspec.to_builtins(self))
        return {"schema": plain.pop("schema"), **plain}


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
    host_us: float = 0.0,
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
    host_us : float
        Microseconds of the host before each layer, while the GPU waits; none in a CUDA graph.

    Raises
    ------
    UserError
        The GPU has no host link, nothing fits, or a number is out of range.
    """
    spec = gpus.load(hw) if isinstance(hw, str) else hw
    link = spec.link.host
    if link is None:
        raise UserError(f"GPU {spec.name} has no host link")
    for name, value in (("context", context), ("batch", batch)):
        if value is not None and value < 1:
            raise UserError(f"{name} must be at least 1, got {value}")
    if not 0 <= hit_rate <= 1:
        raise UserError(f"hit_rate must lie in 0..1, got {hit_rate}")
    if link_share is not None and not 0 < link_share <= 1:
        raise UserError(f"link_share must lie between 0 and 1, got {link_share}")
    decoder = Decoder(spec, model, models.load(model), pattern, setting, options)
    memory = kv_memory_gib if kv_memory_gib is not None else decoder.memory_gib()
    budget, kinds, token = decoder.budget(context), decoder.roles(), decoder.token_bytes()
    # Full and selecting layers read everything, and so keep everything on the GPU.
    kept = sum(budget if role == "sparse" else context for role in kinds) * token
    fits_resident = int(memory * GIB // (context * token * len(kinds)))
    fits = batch or int(memory * GIB // kept)
    if fits < 1:
        raise UserError(f"{memory:.1f} GiB do not hold what one sequence keeps on the GPU, {kept / GIB:.1f} GiB")
    rate = link.gbps * 1e9 * (link_share or link.eff or 1.0)

    def layers(sequences: int) -> list[Layer]:
        made = {role: decoder.layer(role, context, sequences) for role in set(kinds)}
        return [made[role] for role in kinds]

    def at(sequences: int, own: list[Layer], missed: float) -> Decode:
        bytes_ = missed * sequences * budget * token
        fetch = bytes_ / rate + (link.latency_us or 0.0) * 1e-6 if bytes_ else 0.0
        fetches = [fetch if role == "sparse" else 0.0 for role in kinds]
        timeline = run(decode_step(own, decoder.logits(sequences), fetch=fetches, prefetch=prefetch, host=host_us * 1e-6))
        busy = timeline.busy_seconds().get("from host", 0.0)
        return Decode(
            batch=sequences, step_ms=timeline.seconds * 1e3, tokens_per_s=sequences / timeline.seconds, host_link_ms=busy * 1e3
        )

    def bound(sequences: int) -> bool:
        """Whether the link works longer than all else."""
        own = layers(sequences)
        return at(sequences, own, 1 - hit_rate).host_link_ms > at(sequences, own, 0.0).step_ms

    resident = at(fits_resident, layers(fits_resident), 0.0) if fits_resident else None
    own = layers(fits)
    offloaded, wanted = at(fits, own, 1 - hit_rate), resident.tokens_per_s if resident else 0.0
    free = at(fits, own, 0.0).step_ms
    return Offload(
        gpu=spec.name,
        model=decoder.model.name,
        pattern=decoder.asked(context, 1).pattern.name,
        context=context,
        budget=budget,
        hit_rate=hit_rate,
        kv_memory_gib=memory,
        resident=resident,
        offloaded=offloaded,
        speedup=offloaded.tokens_per_s / wanted if wanted else None,
        break_even_hit=_lowest(lambda hit: at(fits, own, 1 - hit).tokens_per_s >= wanted),
        link_bound_below=_lowest(lambda hit: at(fits, own, 1 - hit).host_link_ms <= free) or 0.0,
        link_bound_batch=_first(bound, fits),
    )


def _first(holds: Callable[[int], bool], most: int) -> int | None:
    """The least batch from which on something holds; None where it does not even at the largest."""
    if not holds(most):
        return None
    low, high = 0, most
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if holds(middle) else (middle, high)
    return high


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
