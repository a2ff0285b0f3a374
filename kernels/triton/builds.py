"""What Triton's compiler needs to know of each kernel where there is no GPU and no call to look at.

The values are those that the launcher gives a call on contiguous tensors, so that what is compiled here is what would run.
"""

from __future__ import annotations

import importlib
from typing import Any

from ...facts import UserError, unknown_name
from ...workloads.families import Box
from ...workloads.layout import Tiling, TokenLayout
from . import lists
from .configs import Config, find

MASKS = {"span": lists.SPAN, "causal": lists.CAUSAL, "window": lists.WINDOW, "sinks": lists.CAUSAL_WINDOW, "bits": lists.BITS}
"""Element masks of the block-sparse kernel by name."""

VARIANTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "dense": ("forward", "dense", {"CAUSAL": False}),
    "causal": ("forward", "dense", {"CAUSAL": True}),
    **{f"sparse_{name}": ("forward", "sparse", {"MASK": kind}) for name, kind in MASKS.items()},
    "neighborhood": ("neighborhood", "neighborhood_kernel", {"MASKED": False}),
    "neighborhood_masked": ("neighborhood", "neighborhood_kernel", {"MASKED": True}),
}
"""Kernels that can be built: the module and function behind each, and what it fixes."""

VIDEO = TokenLayout(grid=(30, 48, 80))
VIDEO_WINDOW = Box(window=(18, 24, 24), stride=(16, 8, 8))
"""Pattern and grid of the neighborhood builds: those that the GNA paper times on HunyuanVideo."""
VIDEO_TILES = {16: (1, 4, 4), 32: (2, 4, 4), 64: (4, 4, 4), 128: (2, 8, 8)}
"""Tile of so many tokens."""

STRIDES = ("q_batch", "q_head", "k_batch", "k_head", "v_batch", "v_head")


def names() -> list[str]:
    """Names of the kernels that `signature` knows."""
    return list(VARIANTS)


def signature(
    kernel: str,
    arch: str,
    head_dim: int,
    *,
    config: Config | None = None,
    block: tuple[int, int] | None = None,
    dtype: str = "bf16",
) -> dict[str, Any]:
    """Arguments of `triton.compiler.ASTSource` and options of `triton.compile` for a kernel.

    Parameters
    ----------
    kernel : str
        One of `names()`.
    arch : str
        As `sm90`; chooses the config where none is given.
    head_dim : int
        64, 128 or 256.
    config : Config, optional
        In place of the shipped one.
    block : (int, int), optional
        Rows and keys of a tile, for the shipped config of that block shape.
    dtype : str
        `bf16` or `fp16`.

    Returns
    -------
    dict
        `fn` (jit function; of TRITON_INTERPRET=0), `signature`, `constexprs`, `attrs`, `options`, and the `config` used.
    """
    if kernel not in VARIANTS:
        raise unknown_name("kernel", kernel, names())
    module, function, fixed = VARIANTS[kernel]
    fn = getattr(importlib.import_module(f".{module}", __package__), function)
    chosen = config or find("neighborhood" if module == "neighborhood" else function, arch, head_dim, block)
    constexprs: dict[str, Any] = {
        "Q_TOKEN": head_dim, "K_TOKEN": head_dim, "V_TOKEN": head_dim, "HEADS": 32, "SHARED": 1, "D": head_dim,
        "BLOCK_M": chosen.block_m, "BLOCK_N": chosen.block_n, "REVERSED": chosen.order == "longest_first",
        "LISTS": 1, "ORDERED": chosen.order == "longest_first", "PERSISTENT": chosen.persistent, "TMA": chosen.tma,
        "UPCAST": False,
    }  # fmt: skip
    if module == "neighborhood":
        constexprs |= _video_rule(chosen)
    constexprs = {name: value for name, value in {**constexprs, **fixed}.items() if name in fn.arg_names}
    types, aligned = {}, []
    for index, name in enumerate(fn.arg_names):
        types[name] = "constexpr" if name in constexprs else _type(name, chosen, head_dim, dtype)
        if types[name].startswith("*") or name in STRIDES:
            aligned.append(index)
    options = {"num_warps": chosen.warps, "num_stages": chosen.stages, "enable_fp_fusion": True}
    return {
        "fn": fn,
        "signature": types,
        "constexprs": {(fn.arg_names.index(name),): value for name, value in constexprs.items()},
        # Without it loads are two bytes wide: the compiler cannot know that rows start on 16 bytes.
        "attrs": {(index,): [["tt.divisibility", 16]] for index in aligned},
        "options": options,
        "config": chosen,
    }


def _video_rule(config: Config) -> dict[str, Any]:
    """The constants of the neighborhood kernel."""
    from .neighborhood import rule

    if not {config.block_m, config.block_n} <= VIDEO_TILES.keys():
        raise UserError(
            f"neighborhood builds have blocks of {', '.join(map(str, VIDEO_TILES))}, got {config.block_m} x {config.block_n}"
        )
    return rule(VIDEO_WINDOW, VIDEO, Tiling(q=VIDEO_TILES[config.block_m], kv=VIDEO_TILES[config.block_n]))


def _type(name: str, config: Config, head_dim: int, dtype: str) -> str:
    """Triton's name for the type of an argument."""
    if name in ("k", "v") and config.tma:
        return f"tensordesc<{dtype}[1, 1, {config.block_n}, {head_dim}]>"
    if name in ("q", "k", "v", "o"):
        return f"*{dtype}"
    if name == "lse":
        return "*fp32"
    if name == "scale":
        return "fp32"
    if name in ("full_first", "full_key", "part_first", "part_key", "part_stop", "bits", "heads", "order"):
        return "*i32"
    return "i32"
