"""Explanation: the answer of `explain`, and how it is put together."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import Any, cast

import msgspec
from msgspec import Struct

from ..facts import Document, UserError
from ..hwspecs import Clock, GpuSpec, gpus
from ..kernels import KernelProfile, kernels
from ..simulator import Fidelity, Prediction, Setting, mask_or_plan, question
from ..simulator import predict as run_prediction
from ..simulator.prediction import Stage
from .case import Case
from .judge import Measured, judge
from .stages import StageCause, dense_side, sparse_side, stage_causes
from .verdict import calls_to_share, host_bound, verdict
from .what_if import WhatIf, changed, compared

SCHEMA = "simattn.explain/1"


class Explanation(Struct, frozen=True, kw_only=True):
    """The answer of `explain`; `to_dict` is the JSON of the command line."""

    prediction: Prediction
    dense_waterfall: tuple[Stage, ...]
    stages: tuple[StageCause, ...]
    verdict: str
    host_bound: bool
    """Timed call by call, without a CUDA graph, it is the host that is measured."""
    reuse: int | None
    """Calls that have to share a mask or plan (`host_ms`) for each to be faster than dense."""
    measured: Measured | None
    what_if: tuple[WhatIf, ...]

    def to_dict(self) -> dict[str, Any]:
        """Plain values; `measured` only where a time was given."""
        plain = cast(dict[str, Any], msgspec.to_builtins(self))
        answer = {"schema": SCHEMA, **plain, "prediction": self.prediction.to_dict()}
        return {name: value for name, value in answer.items() if name != "measured" or value is not None}

    def to_json(self) -> str:
        """The same as one line of JSON."""
        return msgspec.json.encode(self.to_dict()).decode()


def explain(
    pattern: str = "radial",
    hw: str | GpuSpec = "b200",
    *,
    measured_ms: float | None = None,
    what_if: Sequence[str] = (),
    kernel: str | KernelProfile | None = None,
    baseline: str | None = None,
    q_tile: int | tuple[int, ...] | None = None,
    kv_tile: int | tuple[int, ...] | None = None,
    fidelity: Fidelity = "fast",
    clock: Clock = "sustained",
    warm: bool = False,
    host_ms: float = 0.0,
    reuse: float = 1.0,
    seed: int = 0,
    params: Document | None = None,
    **problem: Any,
) -> Explanation:
    """Say where the speedup of a pattern goes, judge a measured time, and answer what-ifs.

    Parameters
    ----------
    measured_ms : float, optional
        A run that someone timed, in ms.
    host_ms, reuse : float
        Time to build a mask or a plan while the GPU waits, in ms, and the calls that make use of it.
    what_if : sequence of str
        Changes such as `mask=none` or `q-tile=128,order=longest_first` (`LEVERS`).
    pattern, hw, kernel, baseline, q_tile, kv_tile, fidelity, clock, warm, seed, params, **problem
        As of `predict`.

    Raises
    ------
    UserError
        A name or value is not usable; one line.

    Examples
    --------
    >>> why = explain("sliding_window", "h100", window=128, seq_q=16384, what_if=["sms=2x"])
    >>> [stage.stage for stage in why.stages][:3], round(why.stages[0].speedup, 2)
    (['ideal', 'tiles', 'padding'], 64.25)
    >>> why.what_if[0].latency_ms < why.prediction.latency_ms
    True
    """
    if measured_ms is not None and not 0 < measured_ms < float("inf"):
        raise UserError(f"the measured time must be above zero, got {measured_ms:g} ms")
    spec = gpus.load(hw) if isinstance(hw, str) else hw
    shapes = {name: value for name, value in problem.items() if name in inspect.signature(question).parameters}
    own = {**(params or {}), **{name: value for name, value in problem.items() if name not in shapes}}
    p = run_prediction(
        pattern,
        spec,
        kernel=kernel,
        baseline=baseline,
        q_tile=q_tile,
        kv_tile=kv_tile,
        fidelity=fidelity,
        clock=clock,
        warm=warm,
        host_ms=host_ms,
        reuse=reuse,
        seed=seed,
        params=own,
        **shapes,
    )
    profile = kernel if isinstance(kernel, KernelProfile) else kernels.load(kernel or p.kernel)
    setting = Setting(clock, fidelity, warm=warm, host=mask_or_plan(host_ms, reuse))
    case = Case(question(pattern, params=own, **shapes), spec, profile, q_tile, kv_tile, setting, baseline)
    others = [(text, changed(case, text)) for text in what_if]
    sparse, dense = sparse_side(case, p), dense_side(case, p)
    stages = tuple(stage_causes(case, p, sparse, dense))
    # Circumstances and advice are many simulations: none of them visit by visit.
    quick = case._replace(setting=case.setting._replace(fidelity="fast")) if fidelity == "cycle" else case
    return Explanation(
        prediction=p,
        dense_waterfall=tuple(Stage(stage=s.stage, latency_ms=s.dense_latency_ms) for s in stages),
        stages=stages,
        verdict=verdict(quick, p, stages, sparse),
        host_bound=host_bound(p),
        reuse=calls_to_share(p, setting.host),
        measured=None if measured_ms is None else judge(quick, p, measured_ms, sparse),
        what_if=tuple(compared(text, other, case, p) for text, other in others),
    )
