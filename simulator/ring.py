"""Ring attention: keys and values go round the GPUs, each of which holds its part of the queries.

At every step a GPU attends with the part that it holds while it passes that part on, and merges what it got into its output.
Under a causal mask most parts are not needed by the first GPUs; the zigzag order gives each GPU an early and a late piece,
and so all of them the same work.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import msgspec

from ..facts import UserError
from ..hwspecs import GpuSpec
from ..workloads import AttentionProblem, Memory, Pattern, TileSchedule, TokenLayout
from .choice import KernelChoice, choose_kernel
from .graph import TaskGraph
from .memory import memory_op_seconds
from .setting import Setting
from .system import Timeline, run
from .waterfall import attention_time

Order = Literal["contiguous", "zigzag"]

MERGE_BYTES, FIRST_MERGE_BYTES = 34, 6
"""Bytes moved for each value of O when a part is merged into the fp32 output, and when the first part becomes that output.

Of the elementwise kernels that PyTorch runs one by one: to fp32 (2 read, 4 written), two products with a weight of the row (4, 4)
and a sum (8, 4); zhuzilin/ring-flash-attention @8996282 ring_flash_attn/utils.py. Fused into one kernel it would be 10.
"""


class Ring(NamedTuple):
    """Ring attention on a number of GPUs.

    Attributes
    ----------
    seconds : float
        From one iteration to the next.
    alone_seconds : float
        One GPU on the queries and keys of its own part, as the efficiency is quoted against.
    timeline : Timeline
        All iterations that were simulated.
    """

    gpus: int
    seconds: float
    alone_seconds: float
    timeline: Timeline

    @property
    def efficiency(self) -> float:
        """Iterations a second over what one GPU reaches on its own part, over the number of GPUs."""
        return self.gpus * self.alone_seconds / self.seconds


def ring(
    spec: GpuSpec,
    problem: AttentionProblem,
    *,
    gpus: int,
    order: Order = "contiguous",
    kernel: str | None = None,
    setting: Setting = Setting(),  # noqa: B008 (immutable)
    iterations: int = 3,
) -> Ring:
    """Simulate ring attention.

    Parameters
    ----------
    problem : AttentionProblem
        The call over the whole sequence, dense or causal; each GPU holds `seq_q / gpus` of its tokens.
    gpus : int
        GPUs in the ring, connected by their peer link.
    order : str
        `contiguous`: GPU r holds the r-th part. `zigzag`: pieces r and 2 * gpus - 1 - r of twice as many.
    kernel : str, optional
        Attention kernel; by default the usual one.
    iterations : int
        Iterations that follow each other; the time is that from one to the next.

    Raises
    ------
    UserError
        The GPU has no peer link, or the sequence cannot be divided.

    References
    ----------
    Liu et al., arXiv 2310.01889; zigzag: zhuzilin/ring-flash-attention, whose loop over steps this follows.

    Examples
    --------
    >>> from simattn.hwspecs import gpus
    >>> whole = AttentionProblem(q_heads=32, kv_heads=8, seq_q=8 * 8192, head_dim=128, causal=True)
    >>> h800 = gpus.load("h800")
    >>> one, other = (ring(h800, whole, gpus=8, order=order, kernel="fa2") for order in ("contiguous", "zigzag"))
    >>> one.efficiency < 0.56 < other.efficiency
    True
    """
    if spec.link.peer is None:
        raise UserError(f"GPU {spec.name} has no peer link")
    if gpus < 2:
        raise UserError(f"a ring has at least 2 GPUs, got {gpus}")
    if order == "zigzag" and not problem.causal:
        raise UserError("the zigzag order is for causal attention")
    if problem.seq_q != problem.seq_kv or problem.seq_q % (2 * gpus):
        raise UserError(f"the sequence must be divisible by {2 * gpus}, with as many queries as keys, got {problem.seq_q}")
    part = msgspec.structs.replace(problem, seq_q=problem.seq_q // gpus, seq_kv=problem.seq_q // gpus)
    calls = _Calls(spec, part, choose_kernel(spec, part, "dense", kernel=kernel), setting)
    graph = TaskGraph()
    ends = [_iteration(graph, calls, gpus, order) for _ in range(iterations)]
    timeline = run(graph)
    finished = [max(timeline.spans[number].end for number in numbers) * 1e-12 for numbers in ends]
    steady = (finished[-1] - finished[0]) / (iterations - 1) if iterations > 1 else finished[0]
    whole = part.seq_q
    return Ring(gpus, steady, calls.attention(whole, whole, problem.causal), timeline)


class _Calls(NamedTuple):
    """Times of the kernels of one GPU, in seconds."""

    spec: GpuSpec
    part: AttentionProblem
    choice: KernelChoice
    setting: Setting

    def attention(self, queries: int, keys: int, causal: bool) -> float:
        choice, part = self.choice, self.part
        copies = part.batch * part.q_heads // choice.tiling.pack
        schedule = _block(choice, queries, keys, causal).with_copies(copies)
        return attention_time(choice.spec, choice, schedule, part, self.setting).stages["launch"]

    def merge(self, queries: int, *, first: bool) -> float:
        values = self.part.batch * queries * self.part.q_heads * self.part.head_dim_v
        op = Memory("merge", values * (FIRST_MERGE_BYTES if first else MERGE_BYTES), launches=1 if first else 4)
        return memory_op_seconds(self.choice.spec, op, None)

    def send(self) -> float:
        """K and V of a part to the next GPU."""
        peer, part = self.spec.link.peer, self.part
        assert peer is not None
        moved = part.batch * part.seq_kv * part.kv_heads * (part.head_dim + part.head_dim_v) * part.element_bytes
        return moved / (peer.gbps * 1e9 * (peer.eff or 1.0))


def _block(choice: KernelChoice, queries: int, keys: int, causal: bool) -> TileSchedule:
    """One head of a dense or causal block."""
    layout = TokenLayout(grid=(max(queries, keys),))
    whole = Pattern("causal" if causal else "dense").schedule(layout, choice.tiling)
    return whole if queries == keys else whole.slice((0, queries), (0, keys))


def _iteration(graph: TaskGraph, calls: _Calls, gpus: int, order: Order) -> list[int]:
    """One call of ring attention on all GPUs; the last task of each GPU."""
    tokens, causal = calls.part.seq_q, calls.part.causal
    half = tokens // 2
    # What a GPU computes at a step, as (queries, keys, causal), and how long it takes.
    own, full = (tokens, tokens, causal), (tokens, tokens, False)
    early, late = (tokens, half, False), (half, tokens, False)
    seconds = {call: calls.attention(*call) for call in {own, full, early, late}}
    sending = calls.send()
    held: list[int | None] = [None] * gpus
    done: list[int | None] = [None] * gpus
    for step in range(gpus):
        arriving: list[int | None] = [None] * gpus
        if step + 1 < gpus:
            for rank in range(gpus):
                to = (rank + 1) % gpus
                # Both sides wait for what their streams did before, and the sender for what it passes on.
                waits = [task for task in (done[rank], done[to], held[rank]) if task is not None]
                arriving[to] = graph.add(f"step {step} K and V", f"gpu {rank} to gpu {to}", sending, waits)
        for rank in range(gpus):
            call = own if step == 0 else full
            if step and causal:
                if order == "zigzag":
                    call = early if step <= rank else late
                elif step > rank:
                    continue
            waits = [task for task in (held[rank],) if task is not None]
            attended = graph.add(f"step {step} attention", f"gpu {rank}", seconds[call], waits)
            done[rank] = graph.add(f"step {step} merge", f"gpu {rank}", calls.merge(call[0], first=step == 0), [attended])
        held = arriving
    return [task for task in done if task is not None]
