"""The ops of a plan: what each kernel of a call has to do, and nothing about how fast."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from .schedule import TileSchedule

Access = Literal["stream", "permute", "gather"]
Form = Literal["vector", "copy", "broadcast", "mixed", "cast", "joined", "gathered"]
GemmDtype = Literal["bf16", "fp16", "fp8", "int8", "int4", "tf32", "fp32"]


@dataclass(frozen=True)
class Attention:
    """One attention kernel over a schedule that counts all heads and items.

    Attributes
    ----------
    mask_class : str
        Which kind of kernel it needs.
    kernel : str or None
        Kernel that the system's own code uses; the usual one of the mask class where it does not run.
    launches : int
        Launches that the work is split into, one after the other (one for each head, say).
    """

    name: str
    schedule: TileSchedule
    mask_class: str
    kernel: str | None = None
    launches: int = 1


@dataclass(frozen=True)
class Memory:
    """A kernel that only moves data.

    Attributes
    ----------
    bytes : int
        Read and written, together.
    access : str
        How it reaches memory: `stream` (contiguous), `permute` (rows of one token, to another order) or `gather` (rows of one
        token, from anywhere).
    ctas, threads : int
        CTAs that do one thing after the other, each waiting for memory, and threads of each; 0 where only bytes count.
    every : float
        Calls that share one run of it.
    values : int
        Written by kernels that compute the address of each (`form`), as PyTorch's do for operands that are strided, broadcast or
        of several types.
    form : str
        Form of these kernels, as `kernels/elementwise.toml` explains it; `vector` where only bytes count.
    divisions : int
        That lead from the number of a value to its place.
    """

    name: str
    bytes: int
    launches: int
    access: Access = "stream"
    ctas: int = 0
    threads: int = 0
    every: float = 1.0
    values: int = 0
    form: Form = "vector"
    divisions: int = 0


@dataclass(frozen=True)
class Gemm:
    """Products on the tensor cores.

    Attributes
    ----------
    flops : float
        Two for each multiply and add.
    bytes : int
        Of the result, where it is stored; and of what is read, where a product is so thin that it waits for that.
    dtype : str
        Type of the factors.
    shape : (int, int, int) or None
        Rows, columns and depth of one product, where known; its tiles then come in waves.
    """

    name: str
    flops: float
    bytes: int
    launches: int
    dtype: GemmDtype = "bf16"
    shape: tuple[int, int, int] | None = None
    every: float = 1.0


@dataclass(frozen=True)
class Sort:
    """A sort or top-k: so many passes over its data."""

    name: str
    bytes: int
    launches: int
    passes: float = 2.0
    every: float = 1.0


@dataclass(frozen=True)
class Host:
    """Work of the host that the GPU waits for."""

    name: str
    seconds: float
    every: float = 1.0


SideOp = Memory | Gemm | Sort | Host
Op = Attention | SideOp
Plan = tuple[Op, ...]
