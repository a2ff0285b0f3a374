"""One unit of an SM at a time: exponentials alone, matrix products alone, and both in one loop."""

from __future__ import annotations

from typing import Any

from ..case import Case
from ..check import Checked, relative_error, require
from ..machine import Machine
from ..work import Work, generator, normal

M, N, K = 128, 64, 64
"""Product of one iteration: a tile of scores at head_dim 64, small enough for registers and shared memory everywhere."""
VALUES = 4096
"""Exponentials of one iteration: 16 for each of 256 threads."""
WARPS = 8


def prepare(case: Case, machine: Machine) -> Work:
    """A grid of `ctas_per_sm` CTAs an SM, each of `iterations` rounds."""
    import torch

    from . import probe_kernels as kernels

    iterations = int(case.how["iterations"])
    programs = machine.sm_count * int(case.how["ctas_per_sm"])
    source = generator(case, machine, 0)
    if case.kernel == "exp2":
        x = torch.rand(programs * VALUES, generator=source, device=machine.device)
        out = torch.empty_like(x)

        def run() -> Any:
            kernels.exp2[(programs,)](x, out, iterations, BLOCK=VALUES, num_warps=WARPS)
            return out

        def want() -> Any:
            y = x.double()
            for _ in range(iterations):
                y = torch.exp2(-y)
            return y

        fields = {"ex2": programs * VALUES * iterations}
    else:
        a, b = normal((M, K), case, machine, source), normal((K, N), case, machine, source)
        out = torch.empty((programs, M, N), device=machine.device)
        kernel = getattr(kernels, case.kernel)
        upcast = machine.interpreted and case.dtype == "bf16"

        def run() -> Any:
            kernel[(programs,)](a, b, out, iterations, M=M, N=N, K=K, UPCAST=upcast, num_warps=WARPS)
            return out

        def want() -> Any:
            y = torch.zeros((), dtype=torch.float64)
            for _ in range(iterations if case.kernel == "mma_exp2" else 0):
                y = torch.exp2(-y)
            return (a.double() @ b.double() * iterations + y.to(a.device)).expand(programs, M, N)

        fields = {"flop": programs * 2 * M * N * K * iterations}
        if case.kernel == "mma_exp2":
            fields["ex2"] = programs * M * N * iterations

    def check() -> Checked:
        return require(relative_error(run(), want()), case.dtype, programs)

    return Work([run], check, fields={**fields, "ctas": programs})
