"""Break-even: from which length, density or other value a pattern beats dense attention, with all that runs beside it."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil, isfinite, prod
from typing import Any, cast

import msgspec
from msgspec import Struct

from .facts import UserError
from .hwspecs import GpuSpec, gpus
from .simulator import Prediction, predict, question
from .workloads import TokenLayout

SCHEMA = "simattn.breakeven/1"

TOKENS = "tokens"
"""What is varied by default: the length of the sequence, or the frames of a video."""

CLOSE = 1.02
"""Two values whose ratio is below this are taken for one."""


class Point(Struct, frozen=True, kw_only=True):
    """One value, and what it gives."""

    value: float
    tokens: int
    latency_ms: float
    dense_ms: float
    speedup: float
    side_ms: float
    """Of the latency: kernels beside the attention (selection, planning, permutation, merging)."""


class Breakeven(Struct, frozen=True, kw_only=True):
    """Where a speedup is reached.

    Attributes
    ----------
    vary : str
        What was varied: `tokens`, or a parameter of the pattern.
    target : float
        Wanted speedup over dense.
    value : float or None
        Value at which the speedup passes the target; None if it does not between the first and the last point.
    above : bool or None
        Whether the target is reached above that value (or below it).
    reuse : int or None
        Calls that would have to share the kernels beside the attention, at the last point: 1 where the target is reached anyway,
        None where it would not be even if they cost nothing.
    points : tuple of Point
        In order of the value.
    """

    gpu: str
    pattern: str
    kernel: str
    dense_kernel: str
    vary: str
    target: float
    value: float | None
    above: bool | None
    reuse: int | None
    points: tuple[Point, ...]
    schema: str = SCHEMA

    def words(self) -> str:
        """Where the speedup is reached, in words."""
        wanted = f"{self.target:g} x dense is reached"
        if self.value is None:
            everywhere = all(p.speedup >= self.target for p in self.points)
            return f"{wanted} {'everywhere' if everywhere else 'nowhere'} between these values"
        value = f"{self.value:,.0f}" if self.value >= 100 else f"{self.value:.3g}"
        return (
            f"{wanted} {'from' if self.above else 'up to'} {f'{value} tokens' if self.vary == TOKENS else f'{self.vary} {value}'}"
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `simattn breakeven --json` prints them."""
        plain = cast(dict[str, Any], msgspec.to_builtins(self))
        return {"schema": plain.pop("schema"), **plain}


def breakeven(
    pattern: str,
    hw: str | GpuSpec = "h100",
    *,
    vary: str = TOKENS,
    low: float | None = None,
    high: float | None = None,
    target: float = 1.0,
    points: int = 9,
    on_point: Callable[[], None] = lambda: None,
    params: dict[str, Any] | None = None,
    **options: Any,
) -> Breakeven:
    """Find where a pattern reaches a speedup over dense attention on the same GPU.

    Parameters
    ----------
    pattern, hw, params, options
        As in `predict`.
    vary : str
        `tokens`: the length of a flat sequence, or the frames of a video. Otherwise a parameter of the pattern that is a number.
    low, high : float, optional
        Where to look: 1,024 to 262,144 tokens by default, otherwise an eighth to eight times the parameter's value (at most 1 for
        a share).
    target : float
        Wanted speedup.
    points : int
        Values to begin with, evenly spaced in their logarithm; the passing is then narrowed down to 2 %.

    Returns
    -------
    Breakeven

    Raises
    ------
    UserError
        The parameter is unknown or no number, or the range is empty.

    Examples
    --------
    >>> found = breakeven("sliding_window", "h100", params={"window": 4096}, target=2.0)
    >>> found.above, found.points[0].speedup < 2, found.points[-1].speedup > 4
    (True, True, True)
    """
    spec = gpus.load(hw) if isinstance(hw, str) else hw
    if not (isfinite(target) and target > 0):
        raise UserError(f"target must be above 0, got {target}")
    if points < 2:
        raise UserError(f"points must be at least 2, got {points}")
    asked = question(pattern, params=params, **{k: v for k, v in options.items() if k in _PROBLEM})
    begin, end, whole = _range(asked.pattern.params(), vary, low, high)

    answers: dict[float, Prediction] = {}

    def look(value: float) -> bool:
        """Whether this is a value that has not been looked at: whole tokens, or whole frames, may fall together."""
        layout = _longer(asked.layout, round(value)) if vary == TOKENS else None
        value = layout.tokens if layout else round(value) if whole else value
        if value in answers:
            return False
        if layout:
            answers[value] = predict(pattern, spec, params=params, **{**options, **_shape(layout)})
        else:
            answers[value] = predict(pattern, spec, params={**(params or {}), vary: value}, **options)
        on_point()
        return True

    for i in range(points):
        look(begin * (end / begin) ** (i / (points - 1)))
    found, passing = _passing(answers, target)
    while passing is not None and found[passing + 1][0] > CLOSE * found[passing][0]:
        if not look((found[passing][0] * found[passing + 1][0]) ** 0.5):
            break
        found, passing = _passing(answers, target)
    last = found[-1][1]
    return Breakeven(
        gpu=spec.name,
        pattern=last.pattern,
        kernel=last.kernel,
        dense_kernel=last.dense.kernel,
        vary=vary,
        target=target,
        value=None if passing is None else found[passing + 1][0],
        above=None if passing is None else found[passing + 1][1].speedup >= target,
        reuse=_reuse(last, target),
        points=tuple(_point(value, answer) for value, answer in found),
    )


_PROBLEM = (
    "model",
    "shape",
    "grid",
    "text",
    "frames",
    "tokens_per_frame",
    "seq_q",
    "seq_kv",
    "batch",
    "q_heads",
    "kv_heads",
    "phase",
)


def _range(own: dict[str, Any], vary: str, low: float | None, high: float | None) -> tuple[float, float, bool]:
    """Where to look, and whether values are whole numbers."""
    if vary == TOKENS:
        begin, end, whole = low or 1024.0, high or 262144.0, True
    else:
        now = own.get(vary)
        if type(now) not in (int, float) or not now:
            numbers = sorted(
                name for name, value in own.items() if isinstance(value, int | float) and not isinstance(value, bool) and value
            )
            raise UserError(f"{vary} is no number of the pattern to vary; these are: {', '.join([TOKENS, *numbers])}")
        whole = isinstance(now, int)
        top = 8 * now if whole or now > 1 else 1.0
        begin, end = low or max(now / 8, 1.0 if whole else 0.0), high or top
    if not 0 < begin < end:
        raise UserError(f"the range of {vary} must rise from above 0, got {begin:g}..{end:g}")
    return begin, end, whole


def _longer(usual: TokenLayout, tokens: int) -> TokenLayout:
    """A layout of about so many tokens: a longer sequence, or more frames."""
    first = max(1, round(tokens / prod(usual.grid[1:])))
    return msgspec.structs.replace(usual, grid=(first, *usual.grid[1:]), queries=min(usual.queries, tokens))


def _shape(layout: TokenLayout) -> dict[str, Any]:
    """The options of a call over these tokens."""
    if len(layout.grid) > 1:
        return {"grid": layout.grid, "text": layout.text}
    return {"seq_q": layout.query_tokens, "seq_kv": layout.tokens}


def _passing(answers: dict[float, Prediction], target: float) -> tuple[list[tuple[float, Prediction]], int | None]:
    """All answers in order, and the last one after which the speedup passes the target."""
    found = sorted(answers.items())
    sides = [answer.speedup >= target for _, answer in found]
    changes = [i for i in range(len(found) - 1) if sides[i] != sides[i + 1]]
    return found, changes[-1] if changes else None


def _side_ms(answer: Prediction) -> float:
    return sum(op.latency_ms for op in answer.side)


def _reuse(answer: Prediction, target: float) -> int | None:
    """Calls that have to share the side kernels for the target to be reached."""
    if answer.speedup >= target:
        return 1
    spare = answer.dense.latency_ms / target - (answer.latency_ms - _side_ms(answer))
    return ceil(_side_ms(answer) / spare) if spare > 0 else None


def _point(value: float, answer: Prediction) -> Point:
    return Point(
        value=value,
        tokens=int(answer.problem["seq_kv"]),
        latency_ms=answer.latency_ms,
        dense_ms=answer.dense.latency_ms,
        speedup=answer.speedup,
        side_ms=_side_ms(answer),
    )
