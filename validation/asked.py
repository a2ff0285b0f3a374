"""What a measured run asks of the simulator, or why it cannot."""

from __future__ import annotations

from math import inf
from typing import Any, NamedTuple

import msgspec

from ..facts import UserError
from ..hwspecs import GpuSpec, load_labelled
from ..simulator import Question, question
from .measurement import Measurement
from .sources import kernel_for, pattern_for
from .sources.profiler import GIVE


class Asked(NamedTuple):
    """A measured run as the simulator is asked for it."""

    question: Question
    spec: GpuSpec
    kernel: str
    tiles: dict[str, Any]


SHAPE = ("batch", "q_heads", "kv_heads", "seq_q", "seq_kv", "head_dim")
"""Fields without which nothing is simulated."""

PHASES = {"prefill": "prefill", "diffusion": "diffusion", "decode": "decode", "train-bwd": "backward", "backward": "backward"}
"""Our phase for that of a measured run."""

DTYPES = {"fp16/bf16": "fp16", "int8/fp8": "fp8", "fp8 kv, bf16 mma": "fp8"}
"""Our type for what sources write; where keys are kept in another type than they are multiplied in, that of the keys."""

PASSES = {"train-fwd+bwd": ("prefill", "train-bwd")}
"""Phases that were timed as one, one call after the other."""


def passes_of(run: Measurement) -> list[Measurement]:
    """The calls behind a run: more than one where it was timed forward and backward."""
    return [msgspec.structs.replace(run, phase=phase) for phase in PASSES.get(run.phase, (run.phase,))]


def asked_of(run: Measurement) -> Asked:
    """What a measured run asks of the simulator.

    Raises
    ------
    UserError
        It cannot be simulated; the message says why.
    """
    if not run.latency_ms or not 0 < run.latency_ms < inf:
        raise UserError("no measured time above zero")
    if run.source == GIVE and (run.pattern is None or any(getattr(run, name) is None for name in SHAPE)):
        raise UserError(GIVE)
    if run.suspect:
        raise UserError("contradicts every other source (marked suspect)")
    if run.phase not in PHASES:
        raise UserError(f"phase {run.phase} is not simulated yet")
    pattern = pattern_for(run.pattern or "")
    if pattern is None:
        raise UserError(f"pattern {run.pattern} is not simulated yet")
    # A list of keys for every query says how many keys there are.
    missing = [n for n in SHAPE if getattr(run, n) is None and not (n == "seq_kv" and "topk" in run.pattern_params)]
    if missing:
        raise UserError(f"the source does not give {', '.join(missing)}")
    spec = load_labelled(run.gpu)
    if run.host_bound:
        raise UserError("the GPU waited for the host, so the time is not the kernel's (host_bound)")
    if run.l2 == "warm":
        raise UserError("measured with its inputs in L2, which only served tables are simulated with")
    kernel = kernel_for(run.kernel, spec.arch, run.table)
    if kernel is None:
        raise UserError(f"no profile for kernel {run.kernel} on {spec.arch}")
    shapes, params, tiles = _pattern(run, pattern)
    asked = question(
        pattern,
        q_heads=run.q_heads,
        kv_heads=run.kv_heads,
        head_dim=run.head_dim,
        head_dim_v=run.pattern_params.get("head_dim_v"),
        dtype=DTYPES.get(run.dtype, run.dtype),
        # What is new is one token: to a kernel that is a decode, whatever the framework calls it.
        phase="decode" if run.phase == "prefill" and run.seq_q == 1 else PHASES[run.phase],
        params=params,
        **({"batch": run.batch} | shapes),
    )
    return Asked(asked, spec, kernel, tiles)


def _pattern(run: Measurement, pattern: str) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Layout, parameters and tiles of a run."""
    given = run.pattern_params
    if "feature_map" in given and "window" in given:
        params = {name: tuple(given[name]) for name in ("window", "stride", "dilation") if given.get(name)}
        tiles = {name: tuple(given[name]) for name in ("q_tile", "kv_tile") if given.get(name)}
        return {"grid": tuple(given["feature_map"]), "text": 0}, {**params, "causal": given.get("is_causal", False)}, tiles
    if "topk" in given:
        # Every query has a list of its own: so many calls of one query, with as many keys as are on the list.
        return {"seq_q": 1, "seq_kv": given["topk"], "text": 0, "batch": (run.batch or 1) * (run.seq_q or 1)}, {}, {}
    if pattern == "sliding_window" and "window" not in given:
        raise UserError("the source does not give the window")
    shapes = {"seq_q": run.seq_q, "seq_kv": run.seq_kv, "text": 0}
    return shapes, {"window": given["window"]} if pattern == "sliding_window" else {}, {}
