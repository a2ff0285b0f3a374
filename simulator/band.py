"""The band of a prediction: what it rests on, and how far such predictions were from measured times."""

from __future__ import annotations

from typing import NamedTuple

from ..hwspecs import gpus
from ..kernels.band import Band, Bands, classes, narrowest, shared_bands
from .choice import KernelChoice
from .question import Question

UNCALIBRATED_FACTOR = 1.5
"""Half-width, as a factor, of the band where not even published runs say better."""

MEASURED_MASKS = ("dense", "window")
"""Mask classes of the tables that kernels are calibrated on."""


class PredictionBand(NamedTuple):
    """Where predicted over measured time lies in nine of ten calls like this one.

    Attributes
    ----------
    validity : str
        `in_domain` of the kernel's calibration, or `extrapolated`.
    why : str
        Why the band is as wide as it is.
    """

    low: float
    high: float
    validity: str
    why: str


def band_of(choice: KernelChoice, asked: Question) -> PredictionBand:
    """The band of a call by the kernel that runs its pattern."""
    mask_class, problem = asked.pattern.family.mask_class(), asked.problem
    names = classes(mask_class, max(problem.head_dim, problem.head_dim_v), problem.seq_kv)
    shared = shared_bands()
    if choice.calibration is not None and choice.calibration.bands:
        c = choice.calibration
        own = _found(c.bands, names)
        outside = _outside(choice, asked)
        if not outside:
            return _made(own, "in_domain", f"{own.n} held-out calls of this class on this GPU")
        # What is outside is known no better than what was fitted, nor than what was published.
        fitted = _found(c.bands, classes("dense", 128, problem.seq_kv))
        wide = _wider(_wider(own, fitted), _found(shared["profile"], names))
        return _made(wide, "extrapolated", f"outside what was measured for {c.kernel} on {c.gpu}: {', '.join(outside)}")
    if choice.calibration is not None:
        c = choice.calibration
        why = f"{c.kernel} was fitted to {c.data} on {c.gpu}, too few runs for a band of its own"
        return _made(_found(shared_bands()["profile"], names), "extrapolated", why)
    near = choice.borrowed
    if near is not None and near.kernel == choice.profile.name and near.gpu in gpus:
        step = "architecture" if gpus.load(near.gpu).arch == choice.spec.arch else "generation"
        found = _found(shared[step], names)
        return _made(found, "extrapolated", f"the kernel was calibrated on {near.gpu}, not on {choice.spec.name}")
    found = _found(shared["profile"], names)
    return _made(found, "extrapolated", f"kernel {choice.profile.name} was not calibrated on {choice.spec.name}")


def _found(known: Bands, names: tuple[str, ...]) -> Band:
    return narrowest(known, names) or Band(n=0, low=1 / UNCALIBRATED_FACTOR, high=UNCALIBRATED_FACTOR)


def _made(found: Band, validity: str, why: str) -> PredictionBand:
    return PredictionBand(min(found.low, 1.0), max(found.high, 1.0), validity, why)


def _wider(a: Band, b: Band) -> Band:
    return Band(n=min(a.n, b.n), low=min(a.low, b.low), high=max(a.high, b.high))


def _outside(choice: KernelChoice, asked: Question) -> list[str]:
    """What of a call was not measured when its kernel was calibrated."""
    assert choice.calibration is not None
    problem, domain = asked.problem, choice.calibration.domain
    mask_class = asked.pattern.family.mask_class()
    found = []
    if mask_class not in MEASURED_MASKS:
        found.append(f"{mask_class} masks")
    if domain:
        if max(problem.head_dim, problem.head_dim_v) not in domain.head_dims:
            found.append(f"head dim {problem.head_dim}")
        if not domain.fewest_tokens <= problem.seq_kv <= domain.most_tokens:
            found.append(f"{problem.seq_kv:,} tokens, where {domain.fewest_tokens:,} to {domain.most_tokens:,} were")
    if problem.dtype != "bf16":
        found.append(problem.dtype)
    return found
