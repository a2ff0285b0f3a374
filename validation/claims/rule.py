"""Rules: the verdict on claims that are not simulated, by what their fields say. Data, in `rules.toml`."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Literal

import msgspec

from ...facts import UserError
from .claim import Claim
from .selector import Selector

NEEDED = {"gpu": "the GPU", "seq_len": "how many tokens", "q_heads": "heads (or a model)", "baseline": "the baseline"}
"""Fields without which no time follows, in words."""


class Rule(Selector, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of `rules.toml`; the first that holds is the verdict.

    Attributes
    ----------
    why : str
        What is missing or not modelled. `{missing}` stands for the needed fields that a claim lacks, `{gpu}` for its GPU.
    lacks : bool
        Holds only for claims that lack a needed field.
    """

    verdict: Literal["under-specified", "not modelled"]
    why: str
    lacks: bool = False

    def words(self, claim: Claim) -> str:
        """Why, of one claim."""
        return self.why.format(missing=", ".join(missing(claim)), gpu=claim.gpu)


def missing(claim: Claim) -> list[str]:
    """Needed fields that a claim lacks, in words; a model stands for heads, and an absolute time needs no baseline."""
    spared = {"q_heads"} if claim.model else set()
    if "speedup" not in claim.metric:
        spared.add("baseline")
    return [words for name, words in NEEDED.items() if name not in spared and getattr(claim, name) is None]


@cache
def rules() -> tuple[Rule, ...]:
    """All of them, in the order of the file."""
    text = (Path(__file__).parent / "rules.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text)["rule"], tuple[Rule, ...])


def rule_of(claim: Claim) -> Rule:
    """The rule for a claim that is not simulated.

    Raises
    ------
    UserError
        None holds.
    """
    for rule in rules():
        if rule.read(claim) is not None and (not rule.lacks or missing(claim)):
            return rule
    raise UserError(f"claim {claim.id} is simulated by no setting, and no rule says why")
