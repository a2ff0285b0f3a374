"""Which kernel runs a call, and in which tiles."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from ..facts import UserError
from ..hwspecs import GpuSpec
from ..kernels import Calibration, KernelProfile, Tile, candidates, constants, kernels
from ..workloads import AttentionProblem, Tiling

PACKABLE = ("dense", "window", "varlen", "tokens", "token_gather")
"""Mask classes under which the query heads of a K/V head can share a tile."""

PACKABLE_DECODE = (*PACKABLE, "blocks", "qk_only")
"""The same for queries that are the last of their sequence: what they see of a K/V head is one list."""


class KernelChoice(NamedTuple):
    """A kernel for a mask class, with the tile it will use."""

    profile: KernelProfile
    tile: Tile
    tiling: Tiling
    spec: GpuSpec
    """The GPU as this kernel's calibration found it."""
    calibration: Calibration | None = None
    borrowed: Calibration | None = None
    """Calibration of a related kernel or GPU, where there is none of this kernel on this GPU."""


def choose_kernel(
    spec: GpuSpec,
    problem: AttentionProblem,
    mask_class: str,
    axes: int = 1,
    kernel: str | KernelProfile | None = None,
    *,
    tile_class: str | None = None,
    known: Sequence[Calibration] | None = None,
) -> KernelChoice:
    """The kernel asked for, or the default one, with its tile.

    Parameters
    ----------
    mask_class : str
        What the kernel has to run.
    axes : int
        Axes of the grid; kernels for boxes have tiles for each number of them.
    kernel : str or KernelProfile, optional
        Its name, or a profile with values of one's own.
    tile_class : str, optional
        Mask class that picks the tile, where it is another one (`Question.tile_class`).
    known : sequence of Calibration, optional
        Calibrations to take constants from; by default all that there are. With none, constants are those of the profile.

    Raises
    ------
    UserError
        The kernel is unknown or cannot run the call on this GPU.
    """
    width = max(problem.head_dim, problem.head_dim_v)
    able = candidates(spec, mask_class, problem.dtype, width, problem.phase)
    profile = kernel if isinstance(kernel, KernelProfile) else kernels.load(kernel) if kernel else able[0]
    if not isinstance(kernel, KernelProfile):
        profile = profile.variant(problem.phase, mask_class, problem.dtype)
    if spec.arch not in profile.archs:
        raise UserError(f"kernel {profile.name} does not run on {spec.name} ({spec.arch}), only on {', '.join(profile.archs)}")
    if mask_class not in profile.masks:
        names = ", ".join(p.name for p in able)
        raise UserError(f"kernel {profile.name} cannot run {mask_class} masks; on {spec.name} these can: {names}")
    if problem.dtype not in profile.dtypes:
        raise UserError(f"kernel {profile.name} does not run in {problem.dtype}, only in {', '.join(profile.dtypes)}")
    if problem.phase not in profile.phases:
        raise UserError(f"kernel {profile.name} is not for phase {problem.phase}, only for {', '.join(profile.phases)}")
    if profile.latent and problem.head_dim_v >= problem.head_dim:
        raise UserError(
            f"kernel {profile.name} takes V as a part of K: head_dim_v must be below head_dim, got {problem.head_dim_v}"
        )
    packed = problem.gqa_group if mask_class in (PACKABLE_DECODE if problem.phase == "decode" else PACKABLE) else 1
    rows, grid_axes = problem.seq_q * packed, axes if mask_class == "box" else 1
    tile = profile.tile_for(spec, width, tile_class or mask_class, grid_axes, causal=problem.causal, rows=rows)
    tiling = profile.tiling(tile, packed, problem.seq_q)
    best = constants(profile, spec, known)
    return KernelChoice(best.profile.under(mask_class), tile, tiling, best.spec, best.calibration, best.borrowed)


def with_tile(
    choice: KernelChoice,
    problem: AttentionProblem,
    q_tile: int | tuple[int, ...] | None,
    kv_tile: int | tuple[int, ...] | None,
) -> KernelChoice:
    """The same kernel with tiles of another shape: one that its profile lists, or else the usual tile in that shape."""
    if q_tile is None and kv_tile is None:
        return choice
    q, kv = ((tile,) if isinstance(tile, int) else tile for tile in (q_tile, kv_tile))
    q, kv = q or choice.tile.q, kv or choice.tile.kv
    if min(*q, *kv) < 1:
        raise UserError(f"tiles must be at least 1 along each axis, got {q} and {kv}")
    listed = choice.profile.tile_of(choice.spec, max(problem.head_dim, problem.head_dim_v), (q, kv))
    tile = msgspec.structs.replace(listed or choice.tile, q=q, kv=kv)
    return choice._replace(tile=tile, tiling=msgspec.structs.replace(choice.tiling, q=q, kv=kv))
