"""Verdicts: what came of a claim."""

from __future__ import annotations

from math import log
from typing import Any, Literal

import msgspec
from msgspec import Struct

from ...facts import UserError
from .cause import beyond
from .claim import Claim
from .quantity import quantity
from .rule import rule_of
from .setting import Ask, Quantity, ask_of, cause_of
from .trial import NO_DIFFERENCE, fitting, listed

Word = Literal["reproduced", "off", "under-specified", "not modelled"]

TOLERANCES: dict[Quantity, float] = {
    "kernel time": 0.15,
    "kernel speedup": 0.15,
    "kernel rate": 0.15,
    "side time": 0.25,
    "side speedup": 0.25,
    "keys read": 0.05,
    "attention over dense": 0.15,
    "attention speedup": 0.15,
    "attention time": 0.2,
    "model time": 0.2,
    "model speedup": 0.12,
    "generation time": 0.2,
}
"""Relative error up to which a claim counts as reproduced, set before any of them was simulated."""

SHARE_POINTS = 3.0
"""The same for a share, in points of a percentage."""

FASTER_IS_MORE = tuple(kind for kind in TOLERANCES if kind.endswith(("speedup", "rate", "read")))
"""Quantities that grow as time falls."""


class Verdict(Struct, frozen=True, kw_only=True):
    """What came of a claim.

    Attributes
    ----------
    gives : str or None
        What was simulated; None where nothing was.
    predicted : float or None
        In the unit of the claim.
    error : float or None
        Predicted over published, less one.
    why : str
        Of a claim that is off, the likely cause; of one that is under-specified, what is missing and which values of it would
        reconcile it; of one that is not modelled, what is not.
    assumes : str
        What was taken to be so that the source does not state.
    """

    claim: Claim
    word: Word
    gives: Quantity | None = None
    predicted: float | None = None
    error: float | None = None
    why: str = ""
    assumes: str = ""

    def plain(self) -> dict[str, Any]:
        """The verdict as `simattn claims --json` prints it."""
        c = self.claim
        fields = {name: getattr(c, name) for name in ("id", "system", "claim", "gpu", "unit", "source", "source_kind")}
        own = {name: getattr(self, name) for name in ("gives", "predicted", "error", "why", "assumes")}
        return {**fields, "published": c.value, "verdict": self.word, **own}


def tolerance(gives: Quantity, published: float) -> float:
    """Relative error up to which a figure counts as reproduced."""
    return SHARE_POINTS / published if gives == "attention share" else TOLERANCES[gives]


def judge(claim: Claim) -> Verdict:
    """The verdict on a claim.

    Raises
    ------
    UserError
        No setting and no rule is about it.

    Examples
    --------
    >>> from .claim import read_claims
    >>> dense = judge(read_claims()[0])
    >>> dense.word, dense.gives
    ('reproduced', 'kernel time')
    """
    ask, published = ask_of(claim), claim.number
    if ask is None or published is None:
        rule = rule_of(claim)
        return Verdict(claim=claim, word=rule.verdict, why=rule.words(claim))
    if ask.missing:
        return _tried(claim, ask, published)
    predicted = _simulated(ask, ask.gpu, ask.call)
    if isinstance(predicted, str):
        return Verdict(claim=claim, word="not modelled", why=predicted)
    return _judged(claim, ask, published, predicted)


NO_PROFILE = ("no profiled kernel runs", "the backward pass of")
"""How the simulator begins when it has no kernel for a call; any other refusal is a mistake in a setting."""


def _simulated(ask: Ask, gpu: str, call: dict[str, Any]) -> float | str:
    """The figure, or why the simulator has none."""
    try:
        return quantity(ask.setting, gpu, call, ask.other)
    except UserError as error:
        if not str(error).startswith(NO_PROFILE):
            raise
        return str(error)


def _judged(claim: Claim, ask: Ask, published: float, predicted: float) -> Verdict:
    setting, error = ask.setting, predicted / published - 1
    slow = (error < 0) == (setting.gives in FASTER_IS_MORE)
    within = abs(error) <= tolerance(setting.gives, published)
    return Verdict(
        claim=claim,
        word="reproduced" if within else "off",
        gives=setting.gives,
        predicted=predicted / published * float(claim.value or 0.0),
        error=error,
        why="" if within else beyond(ask, published) or cause_of(setting, slow=slow),
        assumes=setting.assumes,
    )


def _tried(claim: Claim, ask: Ask, published: float) -> Verdict:
    """The verdict on a claim whose source leaves one option out: its values are tried."""
    name = ask.missing
    found: dict[Any, float] = {}
    refused = ""
    for value in ask.values:
        gpu, call = (value, ask.call) if name == "gpu" else (ask.gpu, {**ask.call, name: value})
        predicted = _simulated(ask, gpu, call)
        if isinstance(predicted, str):
            refused = predicted
        else:
            found[value] = predicted
    if not found:
        return Verdict(claim=claim, word="not modelled", why=refused)
    nearest = min(found, key=lambda value: abs(log(found[value] / published)))
    one = _judged(claim, ask, published, found[nearest])
    if max(found.values()) < NO_DIFFERENCE * min(found.values()):
        return msgspec.structs.replace(one, assumes=f"any {name} of {listed(found)}: it makes no difference")
    allowed = tolerance(ask.setting.gives, published)
    ratios = {value: got / published for value, got in found.items()}
    spread = f"{min(ratios.values()):.2f} to {max(ratios.values()):.2f} of the claim"
    if one.word == "off":
        words = f"{name} is not stated, and none of {listed(found)} reconciles it ({spread}; nearest {listed([nearest])})"
        return msgspec.structs.replace(one, why=f"{words}; {one.why}" if one.why else words)
    words = f"{name} is not stated; {fitting(ratios, allowed)} reconciles it ({listed(found)} give {spread})"
    return msgspec.structs.replace(one, word="under-specified", why=words)
