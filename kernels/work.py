"""What the ops of a loop program do: each work item as cycles of the units of an SM and as bytes, for one share of a tile."""

from __future__ import annotations

from collections.abc import Callable
from math import ceil
from typing import Literal, NamedTuple

from ..facts import UserError
from ..hwspecs import GpuSpec
from .profile import KernelProfile
from .tensor_core import Operand, matmul

UNITS = ("tensor", "ex2", "fma", "alu", "smem", "tmem")
"""Units of an SM that ops compete for."""

Kind = Literal["plain", "masked", "qk_only", "skipped", "gather"]
KINDS: tuple[Kind, ...] = ("plain", "masked", "qk_only", "skipped", "gather")
"""What a visit can cost: a tile without and with an element mask, one of which only the scores are computed, one passed over, and
one whose keys lie scattered in memory."""

Work = Literal[
    "load_k", "load_v", "qk", "pv", "mask", "max", "scale", "exp", "sum", "convert", "rescale",
    "q_read", "scores_read", "probabilities_write", "p_to_smem", "barrier",
    # By halves of the head width.
    "load_k_half", "load_v_half", "qk_half", "pv_half",
    # Half of the keys of a tile, kept in fewer bits: fetched, brought to the type of the product by eighths of its columns, and
    # had from the other CTA of a pair.
    "load_half", "dequantize_eighth", "receive_half",
    # Q fetched anew for every tile, and an output that is summed up in memory: read, added to by way of shared memory, stored.
    "load_rows_half", "load_sum_half", "sum_to_smem_half", "store_sum_half",
    # Linear attention in fp32: Q, K and V widened, scores of the chunk, a product with the state, decay, the chunk added to it.
    "widen", "wide_qk", "wide_pv", "state_read", "decay", "state_add",
    # Softmax on the array that multiplies.
    "array_softmax",
    # K and V of bitmaps and packed values.
    "unpack_k", "unpack_v",
    # V of 8 bits, which wgmma takes by columns only: turned in shared memory.
    "transpose_v",
    # CTAs that own keys and visit queries: `rows` are the keys that a share owns, `keys` the queries of a visit.
    "load_q", "load_do", "kq", "vp", "o_read", "store_o",
    "dp", "dv", "dk", "dq", "ds", "ds_to_smem", "dq_read", "dq_to_smem", "dq_reduce", "store_dq",
]  # fmt: skip


class Share(NamedTuple):
    """The numbers that the cost of a work item follows from: one share of a tile."""

    spec: GpuSpec
    profile: KernelProfile
    warps: int
    shares: int
    rows: int
    keys: int
    d: int
    d_v: int
    element_bytes: int
    rate: float
    mask_alu: float
    segment: int = 1
    score_rate: float = 0.0
    """Rate of QK, where it has one of its own."""
    stored: float = 1.0

    @property
    def scores(self) -> int:
        return self.rows * self.keys

    @property
    def family(self) -> str:
        """Tensor instruction that the kernel uses."""
        return "mma_sync" if self.profile.tensor_path == "mma_sync" else self.spec.mma.family

    @property
    def register_share(self) -> float:
        """Share of the register file's time that products take at their full rate.

        What an instruction moves between registers and the tensor core is the same on every GPU, whatever time it then takes: on
        A100 an `mma.sync` is done every 8 cycles of a scheduler, on others every 16 or 32; `wgmma` likewise on H100 and on H20.
        """
        return min(1.0, self.rate * self.element_bytes / _FULL_RATE_BYTES.get(self.family, self.rate * self.element_bytes))

    @property
    def by_warps(self) -> bool:
        """Warps wait for each small product (mma.sync), and leave the tensor core to another one meanwhile.

        Products of wgmma and tcgen05 are queued whole. Where tensor cores are slow, as of GeForce cards, one warp keeps them busy
        by itself: its next product can be issued before they are done with the last one.
        """
        one = MMA_FLOP * 2 / self.element_bytes * self.spec.sm.schedulers / self.rate
        return self.family == "mma_sync" and one < MMA_LATENCY

    @property
    def in_tmem(self) -> bool:
        """Products are accumulated in tensor memory; otherwise in registers."""
        return self.family == "tcgen05"


MMA_FLOP, MMA_LATENCY = 2 * 16 * 8 * 16, 24.6
"""Of an `mma.sync` of 16-bit factors, m16n8k16: FLOP, and cycles until its result is there, on A100 and RTX 4090 (24.1 on H800;
arXiv 2402.13499)."""

_FULL_RATE_BYTES = {"mma_sync": 2048 * 2.0, "wgmma": 4096 * 2.0}
"""FLOP a clock and SM, times bytes of an element, at which an instruction's registers are moved all the time: A100 and H100."""


class Cost(NamedTuple):
    units: dict[str, float]
    latency: float = 0.0
    load_bytes: int = 0


def work_cost(work: Work, share: Share, kind: Kind) -> Cost:
    """What a work item costs on one kind of visit; nothing where it does not run."""
    if not _runs(work, kind):
        return Cost({})
    found = _WORK[work](share)
    return _gathered(share, found) if kind == "gather" and work in LOADS else found


def look_cycles(tile: Share) -> float:
    """Cycles in which the warps that compute find that a tile is passed over."""
    look = tile.profile.look
    read = tile.scores * look.mask_bytes
    # A mask tile comes through the SM's port, and its words are joined on the ALU.
    return look.cycles + read / tile.spec.mem.l2.sm_bytes_per_clk + read / 4 / tile.spec.units.alu_lanes


SECTOR = 32
"""Bytes that L2 hands out at least."""

CHUNK = 16
"""Bytes that a thread copies at a time where no tensor map describes the rows (cp.async)."""

ADDRESS_ALU = 4.0
"""ALU operations for the address of a chunk: row of the list, times the stride, plus column; a compare."""


def _gathered(share: Share, cost: Cost) -> Cost:
    """A load whose rows are found in a list: whole sectors, an address for each chunk, and the list itself before it."""
    row = cost.load_bytes / share.keys
    piece = max(row * share.segment, 1.0)
    fetched = round(cost.load_bytes * -(-piece // SECTOR) * SECTOR / piece)
    alu = cost.load_bytes / CHUNK * ADDRESS_ALU / share.spec.units.alu_lanes
    return Cost({"alu": alu}, (share.spec.mem.l2.latency_near or 250.0), fetched)


LOADS: dict[str, Literal["k", "v"]] = {
    **dict.fromkeys(("load_k", "load_k_half", "load_half", "load_q"), "k"),
    **dict.fromkeys(("load_v", "load_v_half", "load_do"), "v"),
}
"""Which of the two tiles of a visit a work item fetches."""

_SCORES_ONLY = {"load_k", "load_k_half", "load_q", "load_half", "dequantize_eighth", "receive_half"}
_SCORES_ONLY |= {"load_rows_half", "q_read", "qk", "qk_half", "kq", "mask", "max", "scores_read", "barrier"}


def _runs(work: str, kind: Kind) -> bool:
    if kind == "skipped":
        return False
    if work == "mask":
        return kind == "masked"
    return kind != "qk_only" or work in _SCORES_ONLY


def _product(share: Share, columns: int, depth: int, left: Operand) -> Cost:
    legacy = share.family == "mma_sync"
    # Each warp holds some rows, sixteen at least; warps beyond that share the columns, and each of them reads the rows whole.
    readers = min(share.warps, max(1, share.rows // _WARP_ROWS))
    beside = share.warps // readers
    again = share.rows * depth * share.element_bytes * beside if legacy and beside > 1 else 0
    product = matmul(
        share.spec,
        share.rows,
        columns,
        depth * share.element_bytes,
        "registers" if legacy else left,
        share.rate,
        depth,
        readers=readers if legacy else 1,
        legacy=legacy,
    )
    return Cost({"tensor": product.tensor, "smem": product.smem + again / share.spec.units.smem_bytes}, product.latency)


_WARP_ROWS = 16
"""Rows of one mma.sync."""


def _gradient(share: Share, rows: int, columns: int, depth: int, left: Operand) -> Cost:
    """A product of a kernel whose CTAs own keys. Its mma.sync warps stand in the grid that makes them read the least."""
    cost = _product(share._replace(rows=rows), columns, depth, left)
    if share.family != "mma_sync":
        return cost
    split = [n for n in range(1, share.warps + 1) if share.warps % n == 0 and (n == 1 or rows // n >= _WARP_ROWS)]
    read = min(columns * n + rows * (share.warps // n) for n in split) * depth * share.element_bytes
    return Cost({**cost.units, "smem": read / share.spec.units.smem_bytes}, cost.latency)


def _held(share: Share) -> Operand:
    """Where P and dS lie as left factors: where the product before left them, but for mma.sync, whose warps share them."""
    return "tmem" if share.in_tmem else "registers" if share.family == "wgmma" else "smem"


def _smem(share: Share, bytes_: float) -> Cost:
    return Cost({"smem": bytes_ / share.spec.units.smem_bytes})


def _fma(share: Share, operations: float) -> Cost:
    return Cost({"fma": operations / share.spec.units.fma_lanes})


def _alu(share: Share, operations: float) -> Cost:
    return Cost({"alu": operations / share.spec.units.alu_lanes})


def _exp(share: Share) -> Cost:
    softmax = share.profile.softmax
    on_fma = softmax.exp_on_fma.get(share.spec.arch, 0.0)
    units = {"ex2": share.scores * softmax.exp * (1 - on_fma) / share.spec.units.ex2}
    if on_fma:
        units["fma"] = share.scores * on_fma * softmax.polynomial_fma / share.spec.units.fma_lanes
    return Cost(units)


def _tmem(share: Share, read: float, written: float = 0.0) -> Cost:
    """Bytes from tensor memory to registers, and back; none where products are accumulated in registers."""
    if not share.in_tmem:
        return Cost({})
    units = share.spec.units
    if units.tmem_read_bytes is None:
        raise UserError(f"GPU {share.spec.name} gives no rate of its tensor memory (units.tmem_read_bytes)")
    return Cost({"tmem": read / units.tmem_read_bytes + written / (units.tmem_write_bytes or units.tmem_read_bytes)})


def _rescale(share: Share) -> Cost:
    """The output is scaled; from tensor memory it goes to registers and back."""
    values = share.rows * share.d_v * share.profile.softmax.rescale
    return Cost({**_tmem(share, 4 * values, 4 * values).units, **_fma(share, values).units})


def _latent_bytes(share: Share) -> int:
    """A quantized key: d_v elements of a byte each, four bytes for every 128 of them, and the others as they were."""
    return share.d_v + share.d_v // 128 * 4 + (share.d - share.d_v) * share.element_bytes


def _array_softmax(share: Share) -> Cost:
    """Maximum, difference, exponential and sum of a score take a slot of the array each that a multiply-add would take."""
    softmax = share.profile.softmax
    slots = softmax.max + softmax.scale + softmax.exp + softmax.sum
    return Cost({"tensor": 2 * share.scores * slots / share.rate})


_WIDE = 4
"""Bytes of an element in fp32."""


def _widen(share: Share) -> Cost:
    """Q, K and V to fp32, and into shared memory as factors of products; scores and state go there too."""
    loaded = share.rows * share.d + share.keys * (share.d + share.d_v)
    factors = loaded + share.scores + share.d * share.d_v
    return Cost({**_alu(share, loaded).units, **_smem(share, _WIDE * factors).units})


def _unpack(share: Share, width: int) -> Cost:
    """Each element finds its place among the packed values, and goes into shared memory, zeros included."""
    elements = share.keys * width
    operations = _alu(share, elements * share.profile.softmax.dequantize).units
    return Cost({**operations, **_smem(share, elements * share.element_bytes).units})


def _iteration(share: Share) -> float:
    timing = share.profile.timing
    return timing.iteration_cycles.get(share.spec.arch, timing.iteration_cycles.get("other", 0.0)) + timing.page_cycles


_WORK: dict[str, Callable[[Share], Cost]] = {
    "load_k": lambda s: Cost({}, load_bytes=round(s.keys * s.d * s.element_bytes * s.stored)),
    "load_v": lambda s: Cost({}, load_bytes=round(s.keys * s.d_v * s.element_bytes * s.stored)),
    "qk": lambda s: _product(s._replace(rate=s.score_rate or s.rate), s.keys, s.d, "smem"),
    "pv": lambda s: _product(s, s.d_v, s.keys, "tmem" if s.in_tmem else "registers"),
    "mask": lambda s: _alu(s, s.scores * s.mask_alu),
    "max": lambda s: Cost({"alu": s.scores * s.profile.softmax.max / (s.spec.units.max_lanes or s.spec.units.alu_lanes)}),
    "scale": lambda s: _fma(s, s.scores * s.profile.softmax.scale),
    "exp": _exp,
    "sum": lambda s: _fma(s, s.scores * s.profile.softmax.sum),
    "convert": lambda s: _alu(s, s.scores * s.profile.softmax.convert),
    "rescale": _rescale,
    "scores_read": lambda s: _tmem(s, 4 * s.scores),
    "probabilities_write": lambda s: _tmem(s, 0.0, s.element_bytes * s.scores),
    "p_to_smem": lambda s: _smem(s, s.element_bytes * s.scores),
    "q_read": lambda s: _smem(s, s.rows * s.d * s.element_bytes),
    "barrier": lambda s: Cost({}, latency=_iteration(s)),
    "load_k_half": lambda s: Cost({}, load_bytes=s.keys * s.d * s.element_bytes // 2),
    "load_v_half": lambda s: Cost({}, load_bytes=s.keys * s.d_v * s.element_bytes // 2),
    "qk_half": lambda s: _product(s, s.keys, s.d // 2, "smem"),
    "pv_half": lambda s: _product(s, s.d_v // 2, s.keys, "tmem" if s.in_tmem else "registers"),
    "load_rows_half": lambda s: Cost({}, load_bytes=s.rows * s.d * s.element_bytes // 2),
    "load_sum_half": lambda s: Cost({}, load_bytes=4 * s.rows * s.d_v // 2),
    "sum_to_smem_half": lambda s: _smem(s, 2 * 4 * s.rows * s.d_v / 2),
    "store_sum_half": lambda s: Cost({}, load_bytes=4 * s.rows * s.d_v // 2),
    "load_half": lambda s: Cost({}, load_bytes=s.keys // 2 * _latent_bytes(s)),
    "dequantize_eighth": lambda s: Cost(
        {
            **_alu(s, s.keys * s.d_v / 16 * s.profile.softmax.dequantize).units,
            **_smem(s, s.keys * s.d / 16 * s.element_bytes).units,
        }
    ),
    "receive_half": lambda s: _smem(s, s.keys / 2 * s.d * s.element_bytes),
    "array_softmax": _array_softmax,
    "widen": _widen,
    "wide_qk": lambda s: _product(s._replace(element_bytes=_WIDE), s.keys, s.d, "smem"),
    "wide_pv": lambda s: _product(s._replace(element_bytes=_WIDE), s.d_v, s.keys, "smem"),
    "state_read": lambda s: _product(s._replace(element_bytes=_WIDE), s.d_v, s.d, "smem"),
    "state_add": lambda s: _product(s._replace(rows=s.d, element_bytes=_WIDE), s.d_v, s.keys, "smem"),
    # Of the scores, of what the state gives and its sum with what the scores gave, of the keys, and of the state.
    "decay": lambda s: _fma(s, s.scores + 2 * s.rows * s.d_v + s.keys * s.d + s.d * s.d_v),
    "unpack_k": lambda s: _unpack(s, s.d),
    "unpack_v": lambda s: _unpack(s, s.d_v),
    # Read and written once; bytes of four rows are sorted into words, two permutations a word.
    "transpose_v": lambda s: Cost(
        {**_smem(s, 2 * s.keys * s.d_v * s.element_bytes).units, **_alu(s, s.keys * s.d_v / 2 * s.element_bytes).units}
    ),
    # K and V are owned; Q, dO and the gradient of Q belong to the visit. Shares divide the columns of dQ, not what is summed up.
    "load_q": lambda s: Cost({}, load_bytes=s.keys * s.d * s.element_bytes),
    "load_do": lambda s: Cost({}, load_bytes=s.keys * s.d_v * s.element_bytes),
    "kq": lambda s: _gradient(s, s.rows, s.keys, s.d, "smem"),
    "vp": lambda s: _gradient(s, s.keys, s.d_v, s.rows, _held(s)),
    "o_read": lambda s: _tmem(s, 4 * s.keys * s.d_v),
    "store_o": lambda s: Cost({}, load_bytes=s.keys * s.d_v * s.element_bytes),
    "dp": lambda s: _gradient(s, s.rows, s.keys, s.d_v, "smem"),
    "dv": lambda s: _gradient(s, s.rows, s.d_v, s.keys, _held(s)),
    "dk": lambda s: _gradient(s, s.rows, s.d, s.keys, _held(s)),
    "dq": lambda s: _gradient(s, s.keys, ceil(s.d / s.shares), s.rows * s.shares, "smem"),
    "ds": lambda s: _fma(s, 2 * s.scores),
    "ds_to_smem": lambda s: _smem(s, s.element_bytes * s.scores),
    "dq_read": lambda s: _tmem(s, 4 * s.keys * s.d / s.shares),
    "dq_to_smem": lambda s: _smem(s, 4 * s.keys * s.d / s.shares),
    "dq_reduce": lambda s: _smem(s, 4 * s.keys * s.d / s.shares),
    "store_dq": lambda s: Cost({}, load_bytes=4 * s.keys * s.d // s.shares),
}
