"""What a sweep is asked: patterns, GPUs, kernels, and what varies."""

from __future__ import annotations

import inspect
import re
import tomllib
from collections.abc import Iterator, Mapping
from math import exp, isfinite, log
from pathlib import Path
from typing import Annotated, Any, Literal, get_type_hints

import msgspec
from msgspec import Meta, Struct

from ..facts import UserError, convert, unknown_name
from ..simulator import predict, question

Scalar = bool | int | float | str
Value = Scalar | tuple[Scalar, ...]
Names = Annotated[tuple[str, ...], Meta(min_length=1)]

OBJECTIVES: dict[str, Literal["minimize", "maximize"]] = {
    "latency_ms": "minimize",
    "side_ms": "minimize",
    "speedup": "maximize",
    "tflops": "maximize",
}
"""Columns that a search can go for, and which way."""

PROBLEM = tuple(name for name in inspect.signature(question).parameters if name not in ("pattern", "params", "seed"))
"""Options of the problem: those of one value have the dense call in common."""

SETTING = ("q_tile", "kv_tile", "baseline", "fidelity", "clock", "warm", "seed")
"""Further options of `predict` that can vary."""

_HINTS = get_type_hints(question) | get_type_hints(predict)
Options = msgspec.defstruct(
    "Options", [(name, _HINTS[name], None) for name in (*PROBLEM, *SETTING)], frozen=True, forbid_unknown_fields=True
)
"""The types of these options."""


class Range(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The numbers from `low` to `high`, both included: whole ones where both are.

    Parameters
    ----------
    step : number, optional
        Distance of neighbours. Without it a range cannot be laid out as a grid.
    log : bool
        Draw the logarithm evenly.

    Examples
    --------
    >>> Range.parse("1024..4096:1024").values()
    (1024, 2048, 3072, 4096)
    """

    low: int | float
    high: int | float
    step: int | float | None = None
    log: bool = False

    def __post_init__(self) -> None:
        numbers = [n for n in (self.low, self.high, self.step) if n is not None]
        if not all(isfinite(n) for n in numbers) or self.low >= self.high:
            raise UserError(f"a range rises from one number to another, got {self.low}..{self.high}")
        if self.step is not None and (self.step <= 0 or self.log):
            raise UserError(f"the step of a range is above 0, and no log range has one: got {self.low}..{self.high}:{self.step}")
        if self.log and self.low <= 0:
            raise UserError(f"a log range lies above 0, got {self.low}..{self.high}")

    @staticmethod
    def parse(text: str) -> Range | None:
        """The range that a text such as `512..4096`, `512..4096:512` or `0.01..1:log` stands for, if it is one."""
        found = re.fullmatch(r"([^.:]+(?:\.\d+)?)\.\.([^:]+?)(?::(.+))?", text.strip())
        if not found:
            return None
        low, high, step = found.groups()
        try:
            return Range(
                low=_number(low), high=_number(high), step=_number(step) if step not in (None, "log") else None, log=step == "log"
            )
        except ValueError as error:
            if isinstance(error, UserError):
                raise
            if low[:1].isdigit():
                raise UserError(f"a range is LOW..HIGH, LOW..HIGH:STEP or LOW..HIGH:log, got {text}") from None
            return None

    @property
    def whole(self) -> bool:
        """Whether its numbers are whole ones."""
        return all(isinstance(n, int) for n in (self.low, self.high, self.step) if n is not None)

    def values(self) -> tuple[int | float, ...]:
        """Its numbers, where it has a step."""
        assert self.step is not None
        return tuple(self.low + i * self.step for i in range(int((self.high - self.low) / self.step + 1e-9) + 1))

    def at(self, share: float) -> int | float:
        """The number at a share of the way, from 0 to just below 1."""
        edge = 1 if self.whole else 0
        if self.log:
            number = exp(log(self.low) + share * (log(self.high + edge) - log(self.low)))
        else:
            number = self.low + share * (self.high + edge - self.low)
        return min(int(number), int(self.high)) if self.whole else number


def _number(text: str) -> int | float:
    return int(text) if re.fullmatch(r"[+-]?\d+", text.strip()) else float(text)


class SweepSpec(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What a sweep is asked; also the form of its TOML file.

    Parameters
    ----------
    patterns, hw : tuple of str
        Names, aliases or files.
    kernels : tuple of str
        Kernels that run the patterns; the usual one of each by default.
    vary : dict
        Values, or a range, of every name that varies: an option of the problem (`seq_q`, `grid`, `q_heads` ...), of the setting
        (`q_tile`, `clock`, `fidelity` ...), a parameter of a pattern (`stride`, `window` ...) or a number of the GPU
        (`hw.chip.sm_count`). A parameter varies for those patterns that have it.
    options : dict
        The same names, each with one value for all points.
    random : int, optional
        Draw so many points in place of the whole grid.
    optimize : str, optional
        Search for the best value of this column, in so many `trials`.
    seed : int
        Of the draw, of the search, and of patterns that draw at random.

    Examples
    --------
    >>> spec = SweepSpec(patterns=("gna",), hw=("h100",), vary={"stride": (1, 4), "q_heads": Range(low=8, high=24, step=8)})
    >>> SweepSpec.read({"patterns": ["gna"], "hw": ["h100"], "vary": {"stride": [1, 4], "q_heads": "8..24:8"}}) == spec
    True
    """

    patterns: Names
    hw: Names
    kernels: tuple[str, ...] = ()
    vary: dict[str, Annotated[tuple[Value, ...], Meta(min_length=1)] | Range] = {}
    options: dict[str, Value] = {}
    random: Annotated[int, Meta(ge=1, le=10**7)] | None = None
    optimize: str | None = None
    trials: Annotated[int, Meta(ge=1, le=10**6)] | None = None
    seed: Annotated[int, Meta(ge=0, lt=2**32)] = 0

    def __post_init__(self) -> None:
        if self.optimize is not None and self.optimize not in OBJECTIVES:
            raise unknown_name("objective", self.optimize, OBJECTIVES)
        if (self.optimize is None) != (self.trials is None):
            raise UserError("a search needs both: what to optimize, and a number of trials")
        if self.optimize is not None and self.random is not None:
            raise UserError("give either a random sample or a search")
        both = sorted(self.vary.keys() & self.options.keys())
        if both:
            raise UserError(f"{both[0]} has one value for all points, and varies")
        reserved = sorted((self.vary.keys() | self.options.keys()) & {"pattern", "patterns", "hw", "kernel", "kernels", "params"})
        if reserved:
            raise UserError(f"{reserved[0]} is no name to vary: list names under patterns, hw and kernels")
        for name, values in self.vary.items():
            if isinstance(values, tuple) and len(set(map(_exact, values))) < len(values):
                raise UserError(f"{name} has a value twice: {', '.join(map(text_of, values))}")
        if self.random is None and self.optimize is None:
            for name, values in self.vary.items():
                if isinstance(values, Range) and values.step is None:
                    raise UserError(
                        f"a grid needs steps: {name}={values.low}..{values.high}:STEP, or a random sample, or a search"
                    )

    def values(self) -> Iterator[tuple[str, Value]]:
        """Every name with every value, or end of a range, that is given for it."""
        yield from self.options.items()
        for name, values in self.vary.items():
            yield from ((name, value) for value in (values if isinstance(values, tuple) else (values.low, values.high)))

    @staticmethod
    def read(document: Mapping[str, Any], what: str = "sweep") -> SweepSpec:
        """The spec in plain values, as of a TOML file: a text like `512..4096:512` is a range.

        Raises
        ------
        UserError
            One line: which value is wrong, and what is allowed.
        """
        document = dict(document)
        if isinstance(document.get("vary"), Mapping):
            document["vary"] = {name: _axis(values) for name, values in document["vary"].items()}
        return convert(msgspec.to_builtins(document), SweepSpec, what)

    @staticmethod
    def load(path: str | Path) -> SweepSpec:
        """The spec of a TOML file."""
        return SweepSpec.read(document(path), str(path))


def document(path: str | Path) -> dict[str, Any]:
    """A TOML file as it stands."""
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a TOML file: {error}") from None
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


def _axis(values: Any) -> Any:
    if isinstance(values, str):
        return Range.parse(values) or (values,)
    return (values,) if isinstance(values, bool | int | float) else values


def _exact(value: Value) -> Any:
    """A value with its type: 1, 1.0 and true are three."""
    return tuple(map(_exact, value)) if isinstance(value, tuple) else (type(value), value)


def text_of(value: Value) -> str:
    """A value as it is written: 16x8x8, true, 0.5.

    >>> [text_of(v) for v in ((16, 8, 8), True, 0.5, "wan")]
    ['16x8x8', 'true', '0.5', 'wan']
    """
    if isinstance(value, tuple):
        return ("x" if all(type(v) is int for v in value) else ",").join(map(text_of, value))
    return str(value).lower() if isinstance(value, bool) else str(value)
