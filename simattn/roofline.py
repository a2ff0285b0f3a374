"""roofline: the roofs of a GPU, and where patterns lie below them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Literal

from msgspec import Struct, to_builtins

from .facts import UserError
from .hwspecs import Clock, GpuSpec, gpus
from .simulator import Prediction, predict
from .workloads.related import system_of

SCHEMA = "simattn.roofline/1"

DEFAULT_PATTERNS = ("dense", "causal", "sliding_window", "radial", "gna")
"""What is drawn where nothing is asked for."""

Progress = Callable[[str, int, int], None]
"""Called before each point: what is being simulated, points done, points in all."""

Level = Literal["l2", "dram", "host"]
"""Where bytes come from."""


class Roof(Struct, frozen=True, kw_only=True):
    """One limit of a GPU.

    Attributes
    ----------
    name : str
        `tensor`, `ex2`, `l2`, `dram` or `host`.
    tflops : float or None
        Of a unit that computes: the most live TFLOP/s that it allows.
    gbps : float or None
        Of memory or a link: GB/s; it allows `gbps` times the FLOPs of a byte.
    head_dim : int or None
        Of ex2: the mean of the widths of Q and of V that it is for. A pair takes one exponential and four FLOPs for each of
        these, so wide heads need fewer exponentials a FLOP.
    """

    name: str
    words: str
    tflops: float | None = None
    gbps: float | None = None
    head_dim: int | None = None

    def at(self, intensity: float) -> float:
        """Live TFLOP/s that it allows at so many FLOPs a byte."""
        return self.tflops if self.tflops is not None else (self.gbps or 0.0) * intensity / 1e3


class Point(Struct, frozen=True, kw_only=True):
    """One pattern below the roofs.

    Attributes
    ----------
    tflops : float
        Live FLOPs over the predicted latency, side kernels included.
    l2_intensity, dram_intensity : float
        Live FLOPs over the bytes that its attention kernels move.
    roof : str
        The lowest roof above it.
    roof_tflops : float
        What that roof allows.
    limiter : str
        What its time goes to, by the waterfall.
    """

    pattern: str
    kernel: str
    head_dim: int
    dtype: str
    phase: str
    latency_ms: float
    speedup: float
    tflops: float
    l2_intensity: float
    dram_intensity: float
    roof: str
    roof_tflops: float
    limiter: str
    calibrated: bool


class Roofline(Struct, frozen=True, kw_only=True):
    """Roofs of a GPU at its highest clock, and patterns below them; `skipped` says which have no answer, and why.

    Bandwidths are those that a streaming read or a large copy gets, not the stated peaks.
    """

    gpu: str
    title: str
    dtype: str
    clock: str
    clock_mhz: float
    roofs: tuple[Roof, ...]
    points: tuple[Point, ...]
    skipped: dict[str, str]
    schema: str = SCHEMA

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `simattn roofline --json` prints them."""
        plain: dict[str, Any] = to_builtins(self)
        return {"schema": plain.pop("schema"), **plain}


def roofline(
    hw: str | GpuSpec,
    patterns: Sequence[str] = DEFAULT_PATTERNS,
    *,
    clock: Clock = "sustained",
    progress: Progress | None = None,
    **options: Any,
) -> Roofline:
    """The roofs of a GPU, and patterns below them.

    Parameters
    ----------
    hw : str or GpuSpec
        Name, alias or TOML file of a GPU.
    patterns : sequence of str
        Names or TOML files; each runs on its published workload unless the options say otherwise.
    clock : str
        As of `predict`. Roofs stand at the highest clock, of which no run is above, or at that of the data sheet for `boost`.
    progress : callable, optional
        Told of every point before it is simulated.
    **options
        As of `predict`, for all patterns.

    Raises
    ------
    UserError
        The GPU or a pattern is unknown, or no pattern has an answer.

    Examples
    --------
    >>> found = roofline("b200", ["causal"], seq_q=8192)
    >>> [roof.name for roof in found.roofs]
    ['tensor', 'ex2', 'l2', 'dram', 'host']
    >>> found.points[0].roof, found.points[0].tflops < found.points[0].roof_tflops
    ('tensor', True)
    """
    spec = gpus.load(hw) if isinstance(hw, str) else hw
    for name in patterns:
        system_of(name)
    answers: list[Prediction] = []
    skipped: dict[str, str] = {}
    for name in patterns:
        if progress is not None:
            progress(name, len(answers) + len(skipped), len(patterns))
        try:
            answers.append(predict(name, spec, clock=clock, **options))
        except UserError as error:
            skipped[name] = str(error)
    if patterns and not answers:
        raise UserError(next(iter(skipped.values())))
    return below_roofs(spec, answers, clock=clock, skipped=skipped)


def below_roofs(
    spec: GpuSpec, answers: Sequence[Prediction], *, clock: Clock = "sustained", skipped: dict[str, str] | None = None
) -> Roofline:
    """The roofs of a GPU over answers that were predicted on it."""
    regime: Clock = "boost" if clock == "boost" else "burst"
    hz = spec.clock_hz(regime)
    dtypes = sorted({p.problem["dtype"] for p in answers}) or ["bf16"]
    if len(dtypes) > 1:
        raise UserError(f"one roofline is of one type, got {', '.join(dtypes)}: give --dtype")
    widths = sorted({_width(p) for p in answers}) or [128]
    roofs = _roofs(spec, dtypes[0], widths, hz)
    return Roofline(
        gpu=spec.name,
        title=spec.title,
        dtype=dtypes[0],
        clock=regime,
        clock_mhz=hz / 1e6,
        roofs=roofs,
        points=tuple(_point(p, roofs) for p in answers),
        skipped=skipped or {},
    )


def _roofs(spec: GpuSpec, dtype: Any, widths: Sequence[int], hz: float) -> tuple[Roof, ...]:
    sms = spec.chip.sm_count
    l2, link = spec.mem.l2.bytes_per_clk * spec.eff.l2 * hz / 1e9, spec.link.host
    roofs = [Roof(name="tensor", words="tensor cores", tflops=sms * spec.tensor_flops_per_clk(dtype) * hz / 1e12)]
    for width in widths:
        allowed = sms * spec.units.ex2 * hz * 4 * width / 1e12
        roofs.append(Roof(name="ex2", words=f"exponentials, head dim {width}", tflops=allowed, head_dim=width))
    roofs += [
        Roof(name="l2", words="L2", gbps=l2),
        Roof(name="dram", words="DRAM", gbps=spec.dram_bytes_per_s() / 1e9),
    ]
    if link is not None:
        roofs.append(Roof(name="host", words=f"host link, {link.kind}", gbps=link.gbps * (link.eff or 1.0)))
    return tuple(roofs)


def _width(p: Prediction) -> int:
    """The mean of the widths of Q and V."""
    return int(p.problem["head_dim"] + p.problem["head_dim_v"]) // 2


def _point(p: Prediction, roofs: Sequence[Roof]) -> Point:
    flops = p.tflops * p.latency_ms * 1e9
    intensity = {"l2": flops / p.traffic.l2_bytes, "dram": flops / max(p.traffic.dram_bytes, 1.0)}
    own = [roof for roof in roofs if roof.name != "host" and roof.head_dim in (None, _width(p))]
    roof = min(own, key=lambda roof: roof.at(intensity.get(roof.name, 0.0)))
    return Point(
        pattern=p.pattern,
        kernel=p.kernel,
        head_dim=_width(p),
        dtype=p.problem["dtype"],
        phase=p.problem["phase"],
        latency_ms=p.latency_ms,
        speedup=p.speedup,
        tflops=p.tflops,
        l2_intensity=intensity["l2"],
        dram_intensity=intensity["dram"],
        roof=roof.name,
        roof_tflops=roof.at(intensity.get(roof.name, 0.0)),
        limiter=p.limiter,
        calibrated=p.provenance.calibrated_on is not None,
    )
