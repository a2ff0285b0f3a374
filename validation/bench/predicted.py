"""What the simulator says of a case: for the plan, and for the blind test."""

from __future__ import annotations

from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np

from ...facts import UserError
from ...hwspecs import GpuSpec
from ...simulator import question, simulate
from ...simulator.predict import Run
from ..sources import kernel_for
from .case import Case
from .masks import UNMASKED, schedule_of

STAGE = "launch"
"""The kernel with its launch: what lies between the events around a queued call, as `simattn validate` takes it too."""


def predicted_ms(case: Case, spec: GpuSpec) -> float:
    """Time of a case by the simulator, in ms.

    Raises
    ------
    UserError
        It cannot be simulated; the message says why.
    """
    return run_of(case, spec).stages[STAGE] * 1e3


def run_of(case: Case, spec: GpuSpec) -> Run:
    """The simulated call of a case."""
    if case.phase != "prefill":
        raise UserError(f"phase {case.phase} is not simulated yet")
    kernel = kernel_for(case.kernel, spec.arch)
    if kernel is None:
        raise UserError(f"no profile for kernel {case.kernel} on {spec.arch}")
    shape: dict[str, Any] = {name: getattr(case, name) for name in ("batch", "q_heads", "kv_heads", "head_dim", "dtype")}
    shape |= {"seq_q": case.seq_q, "seq_kv": case.seq_kv, "text": 0}
    if case.pattern in (*UNMASKED, "sliding_window"):
        return simulate(question(str(case.pattern), params=dict(case.params), **shape), spec, kernel=kernel)
    work = schedule_of(str(case.pattern), case.params, int(case.seq_q or 0), int(case.seq_kv or 0))
    assert work is not None
    indptr, indices = work.to_bsr()
    with TemporaryDirectory() as folder:
        file = Path(folder) / "mask.npz"
        sizes = {name: getattr(work, name) for name in ("q_tile", "kv_tile", "seq_q", "seq_kv")}
        np.savez(file, indptr=indptr, indices=indices, **sizes)
        asked = question("mask_file", params={"file": str(file)}, **shape)
        return simulate(asked, spec, kernel=kernel)
