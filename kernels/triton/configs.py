"""Shipped block shapes, warps and stages of the bundled kernels, by architecture and head width."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct
from msgspec.structs import replace

from ...facts import UserError, convert

Power = Annotated[int, Meta(ge=16, le=256)]


class Config(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How a kernel is launched.

    Parameters
    ----------
    block_m, block_n : int
        Rows of a q tile and keys of a visit; powers of two.
    warps, stages : int
        Warps of a program, and buffers of the pipelined loads.
    tma : bool
        K and V through tensor-memory-access descriptors (sm90 and newer; elsewhere they are far slower than pointers).
    order : str
        Work items as they come, or those with the most visits first.
    persistent : bool
        Programs that go through the work items, as many as there is room for on the GPU; else a program for each item.
    ctas_per_sm : int
        Programs for which an SM has room (only persistent launches ask).
    """

    block_m: Power
    block_n: Power
    warps: Annotated[int, Meta(ge=1, le=16)] = 4
    stages: Annotated[int, Meta(ge=1, le=8)] = 2
    tma: bool = False
    order: Literal["ascending", "longest_first"] = "ascending"
    persistent: bool = False
    ctas_per_sm: Annotated[int, Meta(ge=1, le=32)] = 1

    def __post_init__(self) -> None:
        for name in ("block_m", "block_n", "warps"):
            value = getattr(self, name)
            if value & (value - 1):
                raise UserError(f"{name} must be a power of two, got {value}")

    def with_(self, **changes: object) -> Config:
        """A copy with other values."""
        return replace(self, **changes)


class Entry(Config, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A shipped config and where it serves."""

    kernels: tuple[str, ...]
    archs: tuple[str, ...]
    head_dim: Annotated[int, Meta(ge=16, le=256)]
    spills: str = ""
    """What the compiler keeps in local memory, and for which kernels; empty where nothing."""

    def config(self) -> Config:
        """The config alone."""
        return Config(
            block_m=self.block_m, block_n=self.block_n, warps=self.warps, stages=self.stages, tma=self.tma,
            order=self.order, persistent=self.persistent, ctas_per_sm=self.ctas_per_sm,
        )  # fmt: skip


class _Shipped(Struct, frozen=True, forbid_unknown_fields=True):
    """The file."""

    source: str
    config: tuple[Entry, ...]


@cache
def shipped() -> tuple[Entry, ...]:
    """All entries of configs.toml, in order of preference."""
    document = tomllib.loads(Path(__file__).with_name("configs.toml").read_text(encoding="utf-8"))
    return convert(document, _Shipped, "configs.toml").config


ARCHS = ("sm80", "sm89", "sm90", "sm100", "sm120")
"""Architectures that have configs; others use those of the nearest relative."""
RELATIVES = {"sm86": "sm89", "sm87": "sm80", "sm103": "sm100", "sm121": "sm120"}


def find(kernel: str, arch: str, head_dim: int, block: tuple[int, int] | None = None) -> Config:
    """The shipped config of a kernel; with `block`, the one for tiles of so many rows and keys.

    Raises
    ------
    UserError
        No entry serves the architecture, head width and block.

    Examples
    --------
    >>> find("dense", "sm90", 128).block_n
    128
    """
    name = RELATIVES.get(arch, arch)
    served = [e for e in shipped() if kernel in e.kernels and name in e.archs and e.head_dim == head_dim]
    if not served:
        raise UserError(f"no config of kernel {kernel} for {arch} and head_dim {head_dim}; archs are {', '.join(ARCHS)}")
    if block is None:
        return served[0].config()
    for entry in served:
        if (entry.block_m, entry.block_n) == block:
            return entry.config()
    # A pattern's own block: the warps and stages of the nearest area, which is what registers and shared memory go by.
    area = block[0] * block[1]
    nearest = min(served, key=lambda e: abs(e.block_m * e.block_n - area))
    return nearest.config().with_(block_m=block[0], block_n=block[1])
