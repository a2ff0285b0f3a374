"""Measured times: a limit, a circumstance or a bug."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from math import log, prod

import msgspec
from msgspec import Struct

from ..facts import UserError
from ..kernels import candidates
from ..simulator import Prediction, attention_time
from ..simulator.baseline import dense_schedule
from ..workloads import Attention, Tiling, TokenLayout
from ..workloads.families import Ragged
from .case import Case
from .stages import Side
from .what_if import changed
from .words import ms

CLOSE = 0.1
"""Relative distance from which on two times are called different."""

HOST_MS = (0.06, 0.16)
"""Time of a call that is too small to keep the GPU busy, in ms: FlashAttention-2 and FlexAttention on 64 tokens
(meta-pytorch/attention-gym issue 172)."""


class Circumstance(Struct, frozen=True, kw_only=True):
    """A mistake or circumstance that may be behind a measured time, and the time it would take."""

    name: str
    words: str
    latency_ms: float
    latency_ms_high: float
    """Where it is a range; otherwise as `latency_ms`."""
    fits: bool
    """Within 10 % of the measured time."""


class Measured(Struct, frozen=True, kw_only=True):
    """A measured time, judged.

    Attributes
    ----------
    judgement : str
        `as_predicted`, `impossible`, `faster`, `explained` (slower, and a circumstance fits) or `likely_a_bug`.
    ratio : float
        Measured over predicted.
    """

    latency_ms: float
    ratio: float
    judgement: str
    words: str
    circumstances: tuple[Circumstance, ...]


def judge(case: Case, p: Prediction, measured: float, sparse: Side) -> Measured:
    """Say whether a measured time is a limit, a circumstance or a bug."""
    ratio, low, high = measured / p.latency_ms, p.latency_ms_low, p.latency_ms_high
    ideal = p.waterfall[0].latency_ms * case.start_mhz() * 1e6 / case.spec.clock_hz("burst")
    band = f"the band of {ms(low)} to {ms(high)}"
    if measured < ideal:
        words = (
            f"Impossible: the live pairs alone take {ms(ideal)} at the peak of the tensor cores. Check what was timed: "
            "whether the GPU was waited for, the shape, the heads, and that the mask keeps what you think."
        )
        return Measured(latency_ms=measured, ratio=ratio, judgement="impossible", words=words, circumstances=())
    found: tuple[Circumstance, ...] = ()
    if abs(ratio - 1) > CLOSE:
        found = tuple(sorted(_circumstances(case, p, measured, sparse), key=lambda c: c.latency_ms))
    nearest = sorted((c for c in found if c.fits), key=lambda c: abs(log(measured / c.latency_ms)))
    fitting = "; or ".join(f"{c.words} ({_span(c)})" for c in nearest[:3])
    largest = max((c.latency_ms_high for c in found), default=p.latency_ms)
    if low <= measured <= high:
        judgement = "as_predicted"
        words = f"As predicted: inside {band}, {ratio:.2f} times the prediction."
        if fitting:
            words += f" The band is too wide to rule out: {fitting}."
    elif measured < low:
        judgement = "faster"
        words = f"Faster than {band}, but not impossible: the live pairs alone take {ms(ideal)}."
        words += f" It would fit if {fitting}." if fitting else " No circumstance that is simulated comes within 10 %."
    elif fitting:
        judgement = "explained"
        words = f"Slower than {band}: {ratio:.2f} times the prediction. It fits if {fitting}."
    else:
        judgement = "likely_a_bug"
        words = f"Likely a bug: slower than {band}, and no cause explains more than {ms(largest)}."
        if measured < largest:
            words = f"Likely a bug: slower than {band}, and no cause comes within 10 %; the slowest takes {ms(largest)}."
        words += " Not simulated: building masks or plans, and other work inside the timed part."
    return Measured(latency_ms=measured, ratio=ratio, judgement=judgement, words=words, circumstances=found)


def _circumstances(case: Case, p: Prediction, measured: float, sparse: Side) -> Iterator[Circumstance]:
    """The closed list, each with the time that it would take."""
    for name, words, times in _closed_list(case, p, sparse):
        try:
            low, high = times()
        except UserError:
            continue  # the call cannot be run like that
        fits = low * (1 - CLOSE) <= measured <= high * (1 + CLOSE)
        yield Circumstance(name=name, words=words, latency_ms=low, latency_ms_high=high, fits=fits)


Times = Callable[[], tuple[float, float]]


def _closed_list(case: Case, p: Prediction, sparse: Side) -> Iterator[tuple[str, str, Times]]:
    """What people really get wrong, or run into, and the time of each."""
    asked, spec, problem, setting = case.asked, case.spec, case.asked.problem, case.setting
    mask_class, main = asked.pattern.family.mask_class(), case.closed().choice

    def of(other: Case, calls: int = 1) -> Times:
        return lambda: (other.latency_ms() * calls,) * 2

    def whole(causal: bool) -> Times:
        def times() -> tuple[float, float]:
            """Every tile, by the kernel that should skip, with its mask on all of them."""
            closed = changed(case, "mask=all").closed()
            choice, axes = closed.choice, next(op.schedule.mask_axes for op in closed.plan if isinstance(op, Attention))
            tiling = Tiling(q=(choice.tiling.q_rows,), kv=(choice.tiling.kv_rows,), pack=choice.tiling.pack)
            schedule = dense_schedule(asked, tiling)
            if not causal:
                band = msgspec.structs.replace(asked.pattern.family.without_pattern(), causal=False)
                flat = TokenLayout(grid=(asked.layout.tokens,), queries=asked.layout.queries)
                schedule = band.schedule(flat, tiling).with_copies(problem.batch * problem.q_heads // tiling.pack)
            schedule = replace(schedule, mask_axes=axes, mask_free=False)
            return (attention_time(choice.spec, choice, schedule, problem, setting).stages["launch"] * 1e3,) * 2

        return times

    if mask_class != "dense":
        yield "masks_everywhere", "the element mask runs on every tile", of(changed(case, "mask=all"))
        yield "no_masks", "no element mask runs (is the result right?)", of(changed(case, "mask=none"))
        yield "no_skipping", "masked tiles are computed too (a mask tensor, not a block mask)", whole(problem.causal)
        yield "pattern_ignored", f"the pattern is ignored: dense by {p.dense.kernel}", lambda: (p.dense.latency_ms,) * 2
    if problem.causal:
        yield "not_causal", "every tile is computed, those above the diagonal too", whole(False)
    for other in candidates(spec, mask_class, problem.dtype, max(problem.head_dim, problem.head_dim_v)):
        if other.name != p.kernel:
            by_other = case._replace(kernel=other, q_tile=None, kv_tile=None)
            yield f"kernel_{other.name}", f"kernel {other.name} ran it", of(by_other)
    if len(main.tiling.q) > 1:
        flat_tiles = case._replace(q_tile=prod(main.tiling.q), kv_tile=prod(main.tiling.kv))
        yield "token_order", "tokens stay in row-major order instead of tiles", of(flat_tiles)
    if problem.gqa_group > 1:
        repeated = msgspec.structs.replace(problem, kv_heads=problem.q_heads)
        yield "repeated_kv", "K and V are repeated for every query head", of(case.on(repeated))
    if problem.batch * problem.kv_heads > 1 and not isinstance(asked.pattern.family, Ragged):
        one = msgspec.structs.replace(problem, batch=1, q_heads=problem.gqa_group, kv_heads=1)
        calls = problem.batch * problem.kv_heads
        # Calls that follow each other share one clock: each alone would start at the highest.
        at_mean = case.at_clock(case.start_mhz() / sparse.slow)
        yield "launch_a_head", f"{calls} calls of one K/V head, one after the other", of(at_mean.on(one), calls)
    if setting.clock == "sustained" and main.spec.chip.clock_sustained_mhz:
        mhz = main.spec.chip.clock_sustained_mhz
        yield "low_clock", f"the clock is at {mhz:,.0f} MHz from the start", of(case.at_clock(mhz))
    if setting.clock != "burst":
        yield "high_clock", "the clock does not fall: a single call on a cool GPU", of(changed(case, "clock=burst"))
    if not setting.warm:
        yield "warm_l2", "Q, K and V lie in L2 from an earlier run", of(case._replace(setting=setting._replace(warm=True)))
    low, high = (p.latency_ms + host for host in HOST_MS)
    yield "host", "the host's time of a call is inside (time many calls, or a CUDA graph)", lambda: (low, high)


def _span(c: Circumstance) -> str:
    return ms(c.latency_ms) if c.latency_ms == c.latency_ms_high else f"{ms(c.latency_ms)} to {ms(c.latency_ms_high)}"
