"""What the machine can do at best: matrix products, streams through DRAM, launches, the host link."""

from __future__ import annotations

from functools import partial
from typing import Any

from ..case import Case
from ..check import Checked, relative_error, require
from ..machine import Machine
from ..work import UnavailableError, Work, copies_of, generator, normal


def prepare(case: Case, machine: Machine) -> Work:
    """Calls of a ceiling, by `op` of the case."""
    return {"gemm": _gemm, "stream": _stream, "launch": _launch, "link": _link}[case.how["op"]](case, machine)


def _gemm(case: Case, machine: Machine) -> Work:
    """A product of m x m matrices of random data, 2 m^3 FLOP."""
    import torch

    m = int(case.how["m"])
    bytes_each = 3 * 2 * m * m
    inputs = []
    for copy in range(copies_of(bytes_each, machine, case)):
        source = generator(case, machine, copy)
        inputs.append([normal((m, m), case, machine, source) for _ in range(2)])

    def check() -> Checked:
        a, b = inputs[-1]
        rows = [0, m // 2, m - 1]
        return require(relative_error((a @ b)[rows], a[rows].double() @ b.double()), case.dtype, len(rows))

    return Work([partial(torch.matmul, *ab) for ab in inputs], check, bytes_each, fields={"flop": 2 * m**3})


def _stream(case: Case, machine: Machine) -> Work:
    """Copy (read and write) or sum (read) of some MiB; `bytes` counts both directions."""
    values = int(case.how["mib"]) * 2**20 // 2
    copying = case.kernel == "copy"
    bytes_each = 2 * values * (2 if copying else 1)
    sources = [normal((values,), case, machine, generator(case, machine, n)) for n in range(copies_of(bytes_each, machine, case))]
    if not copying:
        return Work([x.sum for x in sources], lambda: None, bytes_each, fields={"bytes": bytes_each})
    import torch

    targets = [torch.empty_like(x) for x in sources]

    def check() -> Checked:
        targets[-1].copy_(sources[-1])
        return require(relative_error(targets[-1][:1024], sources[-1][:1024]), case.dtype, 1)

    calls = [partial(y.copy_, x) for x, y in zip(sources, targets, strict=True)]
    return Work(calls, check, bytes_each, fields={"bytes": bytes_each})


def _launch(case: Case, machine: Machine) -> Work:
    """Empty kernels one after another, on a stream or as nodes of a CUDA graph; the time is of one."""
    from .probe_kernels import empty

    count = int(case.how["count"])

    def launches() -> None:
        for _ in range(count):
            empty[(1,)](num_warps=4)

    if case.kernel == "launch-stream":
        return Work([launches], lambda: None, ops=count, per=count)
    if machine.interpreted:
        raise UnavailableError("CUDA graphs need a GPU")
    import torch

    launches()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        launches()
    return Work([graph.replay], lambda: None, per=count)


def _link(case: Case, machine: Machine) -> Work:
    """Pinned host memory to the GPU, or back."""
    import torch

    values = int(case.how["kib"]) * 2**10 // 2
    bytes_each = 2 * values
    pairs: list[tuple[Any, Any]] = []
    for copy in range(copies_of(bytes_each, machine, case)):
        there = normal((values,), case, machine, generator(case, machine, copy))
        here = torch.empty(values, dtype=there.dtype, pin_memory=machine.device == "cuda")
        here.copy_(there)
        pairs.append((there, here) if case.kernel == "h2d" else (here, there))

    def check() -> Checked:
        to, source = pairs[-1]
        to.zero_()
        to.copy_(source)
        return require(relative_error(to.cpu(), source.cpu()), case.dtype, 1)

    calls = [partial(to.copy_, source, non_blocking=True) for to, source in pairs]
    return Work(calls, check, bytes_each, fields={"bytes": bytes_each})
