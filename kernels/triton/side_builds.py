"""What Triton's compiler needs to know of the decode and side kernels where there is no GPU and no call to look at.

The values are those that the launchers give a call on contiguous tensors of a model with `GROUP` query heads to each of
`KV_HEADS` kv heads, so that what is compiled here is what would run.
"""

from __future__ import annotations

from typing import Any

from ...facts import unknown_name

GROUP = 4
KV_HEADS = 8
PAGE = 64
BLOCK = 64
"""Tokens of a pooled block."""
ROWS = 64
"""Last queries of the vertical-slash estimate."""

VARIANTS: dict[str, tuple[str, str, dict[str, Any]]] = {
    "decode": ("decode", "paged_decode_kernel", {}),
    "decode_page16": ("decode", "paged_decode_kernel", {"PAGE": 16}),
    "decode_tokens": ("decode", "gather_decode_kernel", {"GRAIN": 1}),
    "decode_pages": ("decode", "gather_decode_kernel", {"GRAIN": PAGE}),
    "merge": ("decode", "merge_kernel", {"BLOCK_S": 16}),
    "permute": ("side", "permute_kernel", {"SCATTER": False}),
    "unpermute": ("side", "permute_kernel", {"SCATTER": True}),
    "append": ("side", "append_kernel", {}),
    "mean_pool": ("side", "mean_pool_kernel", {"BLOCK": BLOCK}),
    "block_score": ("side", "block_score_kernel", {}),
    "block_score_causal": ("side", "block_score_kernel", {"CAUSAL": True}),
    "top_k": ("side", "top_k_kernel", {"BLOCK": 1024}),
    "top_k_long": ("side", "top_k_kernel", {"ONE": False}),
    "vertical_slash_lse": ("estimate", "vertical_slash_lse_kernel", {}),
    "vertical": ("estimate", "vertical_kernel", {}),
    "slash": ("estimate", "slash_kernel", {}),
    "linear_state": ("estimate", "linear_state_kernel", {}),
    "linear_out": ("estimate", "linear_out_kernel", {}),
}
"""Kernels that can be built: the module and function behind each, and what it fixes."""

SINGLE = ("lse_ptr", "o_part_ptr", "lse_part_ptr", "score_ptr", "p_ptr", "vertical_ptr", "slash_ptr", "state_ptr", "norm_ptr")
INTEGER = ("table_ptr", "lengths_ptr", "list_ptr", "counts_ptr", "index_ptr")
ALIGNED = ("k_page", "v_page", "x_stride", "out_stride", "width")
"""Strides that are multiples of 16 in every call on contiguous tensors."""


def names() -> list[str]:
    """Names of the kernels that `signature` knows."""
    return list(VARIANTS)


def signature(kernel: str, arch: str, head_dim: int, *, dtype: str = "bf16") -> dict[str, Any]:
    """Arguments of `triton.compiler.ASTSource` and options of `triton.compile` for a kernel.

    Parameters
    ----------
    kernel : str
        One of `names()`.
    arch : str
        As `sm90`. These kernels have one shape on every GPU, since all of them wait for memory, not for tensor cores.
    head_dim : int
        A power of two from 16 to 256, of keys and values alike.
    dtype : str
        `bf16` or `fp16`.

    Returns
    -------
    dict
        `fn` (jit function; of TRITON_INTERPRET=0), `signature`, `constexprs`, `attrs`, `options`.
    """
    from . import decode, estimate, side

    if kernel not in VARIANTS:
        raise unknown_name("kernel", kernel, names())
    module, function, fixed = VARIANTS[kernel]
    fn = getattr({"decode": decode, "side": side, "estimate": estimate}[module], function)
    row = KV_HEADS * head_dim
    given: dict[str, Any] = {
        "K_TOKEN": row, "V_TOKEN": row, "K_HEAD": head_dim, "V_HEAD": head_dim, "D": head_dim, "DV": head_dim,
        "PAGE": PAGE, "GROUP": GROUP, "TOKENS": 1, "HEADS": KV_HEADS, "Q_HEADS": KV_HEADS * GROUP, "ROWS": ROWS,
        "Q_BLOCK": BLOCK, "K_BLOCK": BLOCK, "CAUSAL": False, "ONE": True, "UPCAST": False,
        "BLOCK_W": side.permute_width(row), "BLOCK_T": side.PERMUTE_ELEMENTS // side.permute_width(row), "BLOCK_H": KV_HEADS,
        "BLOCK_M": ROWS, "BLOCK_N": estimate.BLOCK_N,
    }  # fmt: skip
    warps, stages = 4, 3
    if module == "decode":
        given |= {"BLOCK_M": decode.row_block(GROUP), "BLOCK_N": decode.BLOCK_N}
        warps, stages = decode.WARPS, decode.STAGES
    elif function == "mean_pool_kernel":
        given["BLOCK_T"] = min(BLOCK, side.POOL_TOKENS)
    elif function == "block_score_kernel":
        given["BLOCK"] = side.SCORE_BLOCK
    elif function == "top_k_kernel":
        given["BLOCK"] = side.TOP_K_BLOCK
        warps = side.top_k_warps(fixed.get("BLOCK", side.TOP_K_BLOCK))
    elif function == "linear_state_kernel":
        given["BLOCK_N"] = estimate.LINEAR_KEYS
        warps = estimate.linear_warps(head_dim, head_dim)
    elif function == "linear_out_kernel":
        given["BLOCK_M"] = estimate.LINEAR_QUERIES
        warps = estimate.LINEAR_WARPS
    given |= fixed
    constexprs = {name: given[name] for name in fn.arg_names if name in given}
    types = {name: "constexpr" if name in constexprs else _type(name, kernel, dtype) for name in fn.arg_names}
    aligned = [name for name in fn.arg_names if types[name].startswith("*") or name in ALIGNED]
    return {
        "fn": fn,
        "signature": types,
        "constexprs": {(fn.arg_names.index(name),): value for name, value in constexprs.items()},
        # Without it loads are two bytes wide: the compiler cannot know that rows start on 16 bytes.
        "attrs": {(fn.arg_names.index(name),): [["tt.divisibility", 16]] for name in aligned},
        "options": {"num_warps": warps, "num_stages": stages, "enable_fp_fusion": True},
    }


def _type(name: str, kernel: str, dtype: str) -> str:
    """Triton's name for the type of an argument."""
    if not name.endswith("_ptr"):
        return "fp32" if name in ("qk_scale", "scale") else "i32"
    # Splits and scores are fp32, and so is what a decode kernel writes for the merge.
    if name in SINGLE or (name == "o_ptr" and kernel != "merge") or (name == "out_ptr" and kernel.startswith("block_score")):
        return "*fp32"
    return "*i32" if name in INTEGER else f"*{dtype}"
