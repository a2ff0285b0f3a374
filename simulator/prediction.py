"""Prediction: the answer, with everything that is needed to judge it."""

from __future__ import annotations

from typing import Any, cast

import msgspec
from msgspec import Struct

from .bounds import Bounds

SCHEMA = "simattn.prediction/1"


class _Part(Struct, frozen=True, kw_only=True):
    """A part of the JSON answer."""


class DenseRun(_Part, frozen=True):
    """The dense call that the speedup is measured against."""

    kernel: str
    latency_ms: float


class Density(_Part, frozen=True):
    """What the pattern keeps, over the dense call."""

    pairs: float
    tiles: float


class Blocks(_Part, frozen=True):
    """The pattern's own blocks, a head."""

    size: int
    active: int
    total: int


class Tiles(_Part, frozen=True):
    """The kernel's tiles, over all heads and items."""

    visited: int
    full: int
    partial: int
    dense: int
    q_tiles: int


class Stage(_Part, frozen=True):
    """Time at one stage of the waterfall: of a machine with this limit and all earlier ones."""

    stage: str
    latency_ms: float


class Traffic(_Part, frozen=True):
    """What the attention kernels move."""

    l2_bytes: float
    """K and V of every visit, and Q and O once: all of it passes through L2."""
    dram_bytes: float
    """What of it L2 does not hold."""


class KernelRun(_Part, frozen=True):
    """One attention kernel of the call, in all its launches; `ctas_per_sm` of its CTAs share an SM."""

    op: str
    kernel: str
    launches: int
    latency_ms: float
    ctas_per_sm: int


class SideOp(_Part, frozen=True):
    """A kernel, or work of the host, beside the attention kernels; what several calls share counts in part."""

    op: str
    latency_ms: float
    bytes: float = 0.0
    flops: float = 0.0
    launches: int = 1


class Provenance(_Part, frozen=True):
    """What the answer rests on."""

    calibrated_on: str | None
    """Measured table that the kernel's constants on this GPU were fitted to."""
    borrowed_from: str | None
    """Kernel and GPU whose constants were taken, where there are none of this kernel on this GPU."""
    recalled: tuple[str, ...]
    """Values that nobody could give a source for."""
    validity: str
    """`in_domain` of a calibration, or `extrapolated`."""
    why: str
    """What the band rests on: which measured calls, or why none is like this one."""
    spec_hash: str
    seed: int
    seed_spread: tuple[float, float] | None
    """Least and most work under other seeds, over that of this one; None where nothing is drawn at random."""
    exactness: str
    """`exact`, or why the pattern is an approximation of what was published."""


class Prediction(_Part, frozen=True):
    """The predicted run time of one attention call.

    Attributes
    ----------
    q_tile, kv_tile : tuple of int
        Tile of the kernel that runs the pattern.
    latency_ms, latency_ms_low, latency_ms_high : float
        Prediction and its band, which is to hold nine in ten measured times.
    correction : float
        By which factor `fast` corrected itself after it had simulated every visit of some heads; 1 where it had no need to.
    warm : bool
        L2 held what it can of Q, K and V at the start.
    speedup : float
        Dense latency on the same GPU over this latency.
    waterfall : tuple of Stage
        Ladder of ever less ideal machines; the last stage is the prediction.
    bounds : Bounds
        Speedups at best.
    attention : tuple of KernelRun
        Its attention kernels, in stream order; what runs beside them is in `side`.
    """

    gpu: str
    kernel: str
    q_tile: tuple[int, ...]
    kv_tile: tuple[int, ...]
    fidelity: str
    correction: float
    clock: str
    warm: bool
    problem: dict[str, Any]
    pattern: str
    pattern_params: dict[str, Any]
    latency_ms: float
    latency_ms_low: float
    latency_ms_high: float
    speedup: float
    dense: DenseRun
    tflops: float
    bounds: Bounds
    density: Density
    blocks: Blocks | None
    tiles: Tiles
    waterfall: tuple[Stage, ...]
    limiter: str
    utilization: dict[str, float]
    traffic: Traffic
    attention: tuple[KernelRun, ...]
    side: tuple[SideOp, ...]
    provenance: Provenance
    schema: str = SCHEMA

    def to_dict(self) -> dict[str, Any]:
        """The JSON answer of `simattn predict --json`, as plain values."""
        plain = cast(dict[str, Any], msgspec.to_builtins(self))
        return {"schema": plain.pop("schema"), **plain, "bounds": self.bounds._asdict()}

    def to_json(self) -> str:
        """The same as one line of JSON."""
        return msgspec.json.encode(self.to_dict()).decode()

    @staticmethod
    def from_dict(plain: dict[str, Any]) -> Prediction:
        """The prediction that `to_dict` gave.

        >>> from simattn.simulator import predict
        >>> p = predict("causal", "h100", seq_q=1024)
        >>> Prediction.from_dict(p.to_dict()) == p
        True
        """
        return msgspec.convert({**plain, "bounds": [plain["bounds"][name] for name in Bounds._fields]}, Prediction)
