"""Settings: how a claim is asked of the simulator. Data, in `settings.toml`; one entry serves many claims."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Any, Literal

import msgspec
from msgspec import Struct, field

from ...facts import UserError
from ...workloads.expressions import value as evaluate
from .claim import Claim
from .selector import Selector

Quantity = Literal[
    "kernel time",
    "kernel speedup",
    "kernel rate",
    "side time",
    "side speedup",
    "keys read",
    "attention share",
    "attention over dense",
    "attention speedup",
    "attention time",
    "model time",
    "model speedup",
    "generation time",
]
"""What a claim is about, as `quantity.py` computes it."""

GPUS = {
    "A100 80GB": "a100",
    "A100-SXM4-80GB": "a100",
    "A800 80GB": "a800",
    "A800 80GB, PCIe 4.0 (31.5 GB/s)": "a800",
    "H800 SXM5": "h800",
    "H800 SXM": "h800",
    "H100 (recalled)": "h100",
    "A100 (per note)": "a100",
    "RTX 5090": "rtx5090",
    "RTX 4090": "rtx4090",
    **{name: name.lower() for name in ("A100", "A800", "B200", "H20", "H100", "H200")},
}
"""Our GPU for the words of a claim; the SXM one where it does not say."""

PHASES = {"decode": "decode", "decode (whole model)": "decode", "train-bwd": "backward"}
"""Our phase for that of a claim, where it is not the pattern's own."""

DTYPES = ("bf16", "fp16", "fp8")


class Setting(Selector, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One entry of `settings.toml`.

    Attributes
    ----------
    gives : str
        What the claim is about.
    pattern : str
        Pattern of the call.
    call : dict
        Options of the call: a value, or `=` and an expression over numbers of the claim (`N` for its tokens) and what
        `where` reads.
    other : dict
        Options of a second call that a ratio is of, in place of those of the first; without it, of the dense call.
    missing : dict
        An option that the source does not state, and values to try.
    gpu : str
        In place of the claim's own.
    assumes : str
        What was taken to be so that the source does not state.
    too_slow, too_fast : str
        Why a prediction may be off, as far as it is known; by sign of the predicted time.
    """

    gives: Quantity
    pattern: str
    call: dict[str, Any] = field(default_factory=dict)
    other: dict[str, Any] = field(default_factory=dict)
    missing: dict[str, list[Any]] = field(default_factory=dict)
    gpu: str = ""
    assumes: str = ""
    too_slow: str = ""
    too_fast: str = ""

    def __post_init__(self) -> None:
        super().__post_init__()
        if len(self.missing) > 1:
            raise UserError(f"one missing option can be tried at a time, got {', '.join(self.missing)}")


class Ask(Struct, frozen=True, kw_only=True):
    """A claim as the simulator is asked for it."""

    setting: Setting
    gpu: str
    call: dict[str, Any]
    other: dict[str, Any]
    missing: str
    """Option that is tried, or nothing."""
    values: tuple[Any, ...]


@cache
def settings() -> tuple[Setting, ...]:
    """All of them, in the order of the file: the first that is about a claim serves it."""
    return msgspec.convert(_document()["setting"], tuple[Setting, ...])


def cause_of(setting: Setting, *, slow: bool) -> str:
    """Why a prediction may be off, as far as it is known."""
    shared: dict[str, str] = {} if slow else _document()["too_fast"]
    return (setting.too_slow if slow else setting.too_fast) or shared.get(setting.gives, "")


@cache
def _document() -> dict[str, Any]:
    return tomllib.loads((Path(__file__).parent / "settings.toml").read_text(encoding="utf-8"))


def ask_of(claim: Claim) -> Ask | None:
    """How a claim is simulated; None where no entry is about it."""
    for setting in settings():
        numbers = setting.read(claim)
        if numbers is not None:
            break
    else:
        return None
    for name in ("batch", "q_heads", "kv_heads", "sparsity", "density"):
        number = getattr(claim, name)
        if isinstance(number, int | float):
            numbers.setdefault(name, number)
    if isinstance(claim.seq_len, int):
        numbers.setdefault("N", claim.seq_len)
    call = _own(claim) | {name: _value(given, numbers) for name, given in setting.call.items()}
    other = {name: _value(given, numbers) for name, given in setting.other.items()}
    gpu = setting.gpu or GPUS.get(claim.gpu or "", "")
    if not gpu and "gpu" not in setting.missing:
        raise UserError(f"{claim.id}: no GPU of ours is {claim.gpu!r}, and its setting names none")
    option, values = next(iter(setting.missing.items()), ("", []))
    tried = tuple(_value(given, numbers) for given in values)
    return Ask(setting=setting, gpu=gpu, call=call, other=other, missing=option, values=tried)


def _own(claim: Claim) -> dict[str, Any]:
    """What a claim states of its call."""
    found: dict[str, Any] = {
        name: getattr(claim, name)
        for name in ("batch", "q_heads", "kv_heads", "head_dim")
        if isinstance(getattr(claim, name), int)
    }
    if claim.phase in PHASES:
        found["phase"] = PHASES[claim.phase]
    if isinstance(claim.seq_len, int):
        found |= {"seq_q": 1 if found.get("phase") == "decode" else claim.seq_len, "seq_kv": claim.seq_len}
    dtype = (claim.dtype or "").lower().split()[:1]
    return found | ({"dtype": dtype[0]} if dtype and dtype[0] in DTYPES else {})


def _value(given: Any, numbers: dict[str, float]) -> Any:
    """An option's value, an expression worked out; whole numbers stay whole."""
    if isinstance(given, list):
        return tuple(_value(part, numbers) for part in given)
    if not isinstance(given, str) or not given.startswith("="):
        return given
    found = evaluate(given[1:], numbers)
    return int(found) if found.is_integer() else found
