"""The machine that measures: a GPU, or a CPU under the Triton interpreter to see that everything runs."""

from __future__ import annotations

import os
import sys
from datetime import UTC, datetime
from importlib.util import find_spec
from typing import Any, NamedTuple

from ...facts import UserError
from ...hwspecs import GpuSpec, gpus
from ...hwspecs.detect import facts_of, nearest
from .nvml import Nvml
from .timer import DeviceTimer, HostTimer, Timer

INTERPRETER = "cpu-interpreter"
"""Stands where the name of a GPU would: nobody can take such rows for measurements."""


class Machine(NamedTuple):
    """Where the calls run."""

    gpu: str
    """Name of the nearest shipped GPU, which names the table."""
    spec: GpuSpec
    device: str
    sm_count: int
    l2_bytes: int
    timer: Timer
    environment: dict[str, Any]
    """Fields that every row carries: GPU, driver, versions, power limit."""
    interpreted: bool = False

    @property
    def table(self) -> str:
        """Name of the table that rows of this GPU stand in."""
        return f"simattn-{self.gpu}"


def find_machine(*, tiny: bool = False) -> Machine:
    """The GPU at hand; with `tiny`, the interpreter where there is none.

    Raises
    ------
    UserError
        torch or triton is not installed, or there is no GPU.
    """
    missing = [name for name in ("torch", "triton") if find_spec(name) is None]
    if missing:
        raise UserError(f"measuring needs {' and '.join(missing)}: pip install 'simattn[kernels]' (--dry-run needs neither)")
    import torch

    if torch.cuda.is_available():
        return _gpu(torch)
    if not tiny:
        raise UserError("torch sees no CUDA GPU: --dry-run lists the work, --tiny runs it small under the Triton interpreter")
    return _interpreter(torch)


def _gpu(torch: Any) -> Machine:
    properties = torch.cuda.get_device_properties(0)
    facts = facts_of(properties)
    spec = gpus.load(nearest(facts))
    uuid = f"GPU-{str(properties.uuid).removeprefix('GPU-')}" if hasattr(properties, "uuid") else ""
    nvml = Nvml(uuid)
    l2_bytes = int(facts.l2_bytes or spec.mem.l2.mib * 2**20)
    timer = DeviceTimer(torch, (nvml.clock_max_mhz() or spec.chip.clock_max_mhz) * 1e6, nvml)
    environment = {
        "gpu_name": facts.name,
        "driver": nvml.driver(),
        "cuda": torch.version.cuda,
        "power_limit_w": nvml.power_limit_w(),
        "clock_max_mhz": nvml.clock_max_mhz(),
        **_versions(),
    }
    return Machine(spec.name, spec, "cuda", facts.sm_count or spec.chip.sm_count, l2_bytes, timer, environment)


def _interpreter(torch: Any) -> Machine:
    # Triton decides when a kernel is defined whether it is interpreted.
    if os.environ.get("TRITON_INTERPRET") != "1":
        if "triton" in sys.modules:
            raise UserError("triton was imported before TRITON_INTERPRET=1 was set")
        os.environ["TRITON_INTERPRET"] = "1"
    environment = {"gpu_name": INTERPRETER, "driver": None, "cuda": None, "power_limit_w": None, **_versions()}
    spec = gpus.load("h200")
    # Wave edges as on two SMs: each program takes tens of milliseconds here.
    return Machine(INTERPRETER, spec, "cpu", 2, 0, HostTimer(), environment, interpreted=True)


def _versions() -> dict[str, Any]:
    from importlib.metadata import version

    return {name: version(name) for name in ("torch", "triton", "simattn")}


def now() -> str:
    """Date and time of a row, in UTC.

    >>> now().endswith("Z")
    True
    """
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
