"""Attention kernels that are not ours: PyTorch's own, and those of packages where they are installed."""

from __future__ import annotations

import warnings
from functools import cache
from importlib import import_module
from importlib.util import find_spec
from typing import Any

from ....workloads import TileSchedule
from ..case import Case
from ..machine import Machine
from ..work import UnavailableError, dtype_of
from .attention import Kernel


def peer(case: Case, machine: Machine, work: TileSchedule | None) -> Kernel:
    """A kernel by its label, made ready for a case.

    Raises
    ------
    UnavailableError
        The kernel is not here, or cannot do this.
    """
    if work is not None and case.kernel not in ("flex", "flashinfer_bsr"):
        raise UnavailableError(f"kernel {case.kernel} takes no list of blocks")
    return {
        "fa2": _sdpa,
        "cudnn": _sdpa,
        "flex": _flex,
        "fa3": _flash_attn,
        "flash-attn-2": _flash_attn,
        "flashinfer_bsr": _flashinfer,
    }[case.kernel](case, machine, work)


def _sdpa(case: Case, machine: Machine, work: TileSchedule | None) -> Kernel:
    """One backend of scaled_dot_product_attention: FlashAttention-2 as PyTorch ships it, or cuDNN."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel
    from torch.nn.functional import scaled_dot_product_attention

    causal, shared = case.pattern == "causal", case.q_heads != case.kv_heads
    if case.kernel == "cudnn" and machine.interpreted:
        raise UnavailableError("cuDNN needs a GPU")
    if causal and case.seq_q != case.seq_kv:
        raise UnavailableError("PyTorch aligns the first query with the first key")
    backend = {"fa2": SDPBackend.FLASH_ATTENTION, "cudnn": SDPBackend.CUDNN_ATTENTION}[case.kernel]

    def attend(q: Any, k: Any, v: Any) -> Any:
        with sdpa_kernel(backend):
            return scaled_dot_product_attention(q, k, v, is_causal=causal, enable_gqa=shared)

    cudnn: Any = torch.backends.cudnn
    version = f"cuDNN {cudnn.version()}" if case.kernel == "cudnn" else f"PyTorch {torch.__version__} flash"
    return Kernel(attend, fields={"kernel_version": version})


@cache
def _compiled_flex(interpreted: bool) -> Any:
    """FlexAttention; compiled once for each shape, and only on a GPU, since compiling takes longer than a small case."""
    import torch
    from torch.nn.attention.flex_attention import flex_attention

    if interpreted:
        # It is run to see that everything fits together; that it is slow is known.
        warnings.filterwarnings("ignore", message="flex_attention called without torch.compile")
        return flex_attention
    torch._dynamo.config.cache_size_limit = 512
    return torch.compile(flex_attention, dynamic=False)


def _flex(case: Case, machine: Machine, work: TileSchedule | None) -> Kernel:
    """FlexAttention, with the schedule as its BlockMask: tiles that need no mask function."""
    import torch
    from torch.nn.attention.flex_attention import create_block_mask

    mask, options = None, {}
    if work is not None:
        mask = work.to_block_mask().to(machine.device)
        if machine.interpreted:
            # Not compiled, it goes by the mask function alone, not by the lists.
            blocks = torch.from_numpy(work.to_mask()[0])
            mask.mask_mod = lambda batch, head, q, k: blocks[q // work.q_tile, k // work.kv_tile]
        # Its default tile of 128 rows does not fit into smaller blocks.
        options = {"BLOCK_M": min(work.q_tile, 128), "BLOCK_N": min(work.kv_tile, 64)} if work.q_tile < 128 else {}
    elif case.pattern == "causal":
        mask = create_block_mask(_causal, None, None, case.shape[3], case.shape[4], device=machine.device)
    flex = _compiled_flex(machine.interpreted)
    shared = case.q_heads != case.kv_heads

    def attend(q: Any, k: Any, v: Any) -> Any:
        with torch.no_grad():
            return flex(q, k, v, block_mask=mask, enable_gqa=shared, kernel_options=options or None)

    return Kernel(attend, fields={"kernel_version": f"PyTorch {torch.__version__}", "kernel_options": options})


def _causal(batch: Any, head: Any, q: Any, k: Any) -> Any:
    return q >= k


def _flash_attn(case: Case, machine: Machine, work: TileSchedule | None) -> Kernel:
    """The flash-attn packages: version 3 is a module of its own."""
    module = {"fa3": "flash_attn_interface", "flash-attn-2": "flash_attn"}[case.kernel]
    run = _installed(module, machine).flash_attn_func
    causal = case.pattern == "causal"

    def attend(q: Any, k: Any, v: Any) -> Any:
        o = run(q, k, v, causal=causal)
        return o[0] if isinstance(o, tuple) else o

    package = {"fa3": "flash_attn_3", "flash-attn-2": "flash_attn"}[case.kernel]
    return Kernel(attend, tokens_first=True, fields={"kernel_version": _version(package)})


def _flashinfer(case: Case, machine: Machine, work: TileSchedule | None) -> Kernel:
    """FlashInfer's block-sparse wrapper, planned beforehand."""
    flashinfer = _installed("flashinfer", machine)
    if work is None or case.batch != 1:
        raise UnavailableError("FlashInfer's block-sparse kernel takes one item and a list of blocks")
    import torch

    indptr, indices = (torch.from_numpy(x).to(machine.device, torch.int32) for x in work.to_bsr())
    wrapper = flashinfer.BlockSparseAttentionWrapper(torch.empty(2**27, dtype=torch.uint8, device=machine.device))
    wrapper.plan(
        indptr, indices, case.seq_q, case.seq_kv, work.q_tile, work.kv_tile, case.q_heads, case.kv_heads, case.head_dim,
        q_data_type=dtype_of(case),
    )  # fmt: skip

    def attend(q: Any, k: Any, v: Any) -> Any:
        return wrapper.run(q[0], k[0], v[0])[None]

    return Kernel(attend, tokens_first=True, fields={"kernel_version": _version("flashinfer-python")})


def _installed(module: str, machine: Machine) -> Any:
    if machine.interpreted or find_spec(module) is None:
        raise UnavailableError(f"package {module} is not installed" if not machine.interpreted else f"{module} needs a GPU")
    return import_module(module)


def _version(package: str) -> str:
    from importlib.metadata import PackageNotFoundError, version

    try:
        return f"{package} {version(package)}"
    except PackageNotFoundError:
        return package
