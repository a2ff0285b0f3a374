"""runners: how each kind of case is run, one module a kind.

attention  dense, causal, windowed and block-sparse attention: bundled kernels, SDPA, FlexAttention, and what else is installed
peers      the attention kernels that are not ours
decode     paged and gathered decode, split-KV, and a cache that lies in host memory
side       the kernels beside the attention
ceiling    GEMM, copies, launches, host link
probe      one unit of an SM at a time
"""

from __future__ import annotations

from importlib import import_module

from ..case import Case
from ..machine import Machine
from ..work import Work

RUNNERS = ("attention", "ceiling", "decode", "probe", "side")


def prepare(case: Case, machine: Machine) -> Work:
    """A case made ready by its runner, which is imported here: runners need torch."""
    if case.runner not in RUNNERS:
        raise ValueError(f"runner must be one of {', '.join(RUNNERS)}, got {case.runner}")
    work: Work = import_module(f".{case.runner}", __name__).prepare(case, machine)
    return work
