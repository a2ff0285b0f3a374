"""Ring attention: keys and values go round the GPUs, each of which holds its part of the queries.

At every step a GPU attends with the part that it holds while it passes that part on, and merges what it got into its output.
Under a causal mask most parts are not needed by the first GPUs. The zigzag order gives each GPU an early and a late piece, the
striped one every n-th token, and so all of them the same work.
"""

from __future__ import annotations

import tomllib
from collections import defaultdict
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple, cast, get_args

import msgspec
from msgspec import Struct

from ..facts import Provenance, UserError, unknown_name
from ..hwspecs import GpuSpec
from ..workloads import AttentionProblem, Memory, Pattern, TileSchedule, TokenLayout
from ..workloads.ops import Form
from .choice import KernelChoice, choose_kernel
from .clock import SETTLED
from .collectives import Peers, peers
from .graph import PICOSECONDS, TaskGraph
from .memory import memory_op_seconds
from .setting import Setting
from .system import Timeline, run
from .waterfall import attention_time

Order = Literal["contiguous", "zigzag", "striped"]


class Addressing(Struct, frozen=True, forbid_unknown_fields=True):
    """A kernel that computes the address of each value: its form and divisions, as in `Memory`."""

    form: Form
    divisions: int = 0


class Elementwise(Struct, frozen=True, forbid_unknown_fields=True):
    """Elementwise kernels that follow each other: bytes for each value of O and each row of a head, and launches."""

    value_bytes: int
    row_bytes: int
    launches: int
    addressing: tuple[Addressing, ...] = ()


class _Costs(Struct, frozen=True, forbid_unknown_fields=True):
    """What a ring runs beside attention: with the first part, every later one, one for some of the rows, and at the end."""

    first: Elementwise
    merge: Elementwise
    slice: Elementwise
    last: Elementwise
    meta: dict[str, Provenance]


@cache
def _costs() -> _Costs:
    return msgspec.convert(tomllib.loads(Path(__file__).with_name("ring.toml").read_text(encoding="utf-8")), _Costs)


SCHEMA = "simattn.ring/1"


class Rank(Struct, frozen=True, kw_only=True):
    """One GPU of a ring: seconds of one iteration on its stream, and of its link to the next GPU."""

    rank: int
    attention: float
    merges: float
    waiting: float
    sending: float


class Ring(Struct, frozen=True, kw_only=True):
    """Ring attention on a number of GPUs.

    Attributes
    ----------
    seconds : float
        From one iteration to the next.
    alone_seconds : float
        One GPU on the queries and keys of its own part, as the efficiency is quoted against.
    ranks : tuple of Rank
        By GPU: a causal mask gives them different work, unless the order evens it out.
    timeline : Timeline
        All iterations that were simulated.
    """

    gpu: str
    kernel: str
    order: Order
    gpus: int
    seconds: float
    alone_seconds: float
    ranks: tuple[Rank, ...]
    timeline: Timeline

    @property
    def efficiency(self) -> float:
        """Iterations a second over what one GPU reaches on its own part, over the number of GPUs."""
        return self.gpus * self.alone_seconds / self.seconds

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `simattn ring --json` prints them."""
        fields = {name: getattr(self, name) for name in self.__struct_fields__ if name != "timeline"}
        return {"schema": SCHEMA, **cast(dict[str, Any], msgspec.to_builtins(fields)), "efficiency": self.efficiency}


def ring(
    spec: GpuSpec,
    problem: AttentionProblem,
    *,
    gpus: int,
    order: Order = "contiguous",
    kernel: str | None = None,
    setting: Setting = Setting(repeats=SETTLED),  # noqa: B008 (immutable)
    iterations: int = 3,
) -> Ring:
    """Simulate ring attention.

    Parameters
    ----------
    problem : AttentionProblem
        The call over the whole sequence, dense or causal; each GPU holds `seq_q / gpus` of its tokens.
    gpus : int
        GPUs in the ring, connected by their peer link, or over the host where they have none.
    order : str
        `contiguous`: GPU r holds the r-th part. `zigzag`: pieces r and 2 * gpus - 1 - r of twice as many. `striped`: tokens r,
        r + gpus, r + 2 * gpus and so on.
    kernel : str, optional
        Attention kernel; by default the usual one.
    iterations : int
        Iterations that follow each other; the time is that from one to the next.

    Raises
    ------
    UserError
        The GPU has no link to another, the order is unknown, or the sequence cannot be divided.

    References
    ----------
    Liu et al., arXiv 2310.01889; striped: arXiv 2311.09431; zigzag: zhuzilin/ring-flash-attention, whose loops this follows.

    Examples
    --------
    >>> from simattn.hwspecs import gpus
    >>> whole = AttentionProblem(q_heads=32, kv_heads=8, seq_q=8 * 8192, head_dim=128, causal=True)
    >>> h800 = gpus.load("h800")
    >>> one, other = (ring(h800, whole, gpus=8, order=order, kernel="fa2") for order in ("contiguous", "zigzag"))
    >>> one.efficiency < 0.56 < other.efficiency
    True
    """
    if order not in get_args(Order):
        raise unknown_name("order", order, get_args(Order))
    if gpus < 2:
        raise UserError(f"a ring has at least 2 GPUs, got {gpus}")
    if order != "contiguous" and not problem.causal:
        raise UserError(f"the {order} order is for causal attention")
    if problem.seq_q != problem.seq_kv or problem.seq_q % (2 * gpus):
        raise UserError(f"the sequence must be divisible by {2 * gpus}, with as many queries as keys, got {problem.seq_q}")
    part = msgspec.structs.replace(problem, seq_q=problem.seq_q // gpus, seq_kv=problem.seq_q // gpus)
    calls = _Calls(peers(spec), part, choose_kernel(spec, part, "dense", kernel=kernel), setting)
    graph = TaskGraph()
    ends = [_iteration(graph, calls, gpus, order) for _ in range(iterations)]
    timeline = run(graph)
    finished = [max(timeline.spans[number].end for number in numbers) / PICOSECONDS for numbers in ends]
    steady = (finished[-1] - finished[0]) / (iterations - 1) if iterations > 1 else finished[0]
    whole = part.seq_q
    return Ring(
        gpu=spec.name,
        kernel=calls.choice.profile.name,
        order=order,
        gpus=gpus,
        seconds=steady,
        alone_seconds=calls.attention(whole, whole, problem.causal),
        ranks=_ranks(timeline, gpus, steady, iterations),
        timeline=timeline,
    )


def _ranks(timeline: Timeline, gpus: int, seconds: float, iterations: int) -> tuple[Rank, ...]:
    """What each GPU does in one iteration of `seconds`."""
    spent: dict[tuple[str, str], float] = defaultdict(float)
    for span, task in zip(timeline.spans, timeline.graph.tasks, strict=True):
        spent[task.place, task.name.split()[-1]] += (span.end - span.start) / PICOSECONDS / iterations
    found = []
    for rank in range(gpus):
        place = f"gpu {rank}"
        attention, merges = spent[place, "attention"], spent[place, "merge"] + spent[place, "output"]
        sending = spent[f"{place} to gpu {(rank + 1) % gpus}", "V"]
        waiting = max(seconds - attention - merges, 0.0)
        found.append(Rank(rank=rank, attention=attention, merges=merges, waiting=waiting, sending=sending))
    return tuple(found)


class _Calls(NamedTuple):
    """Times of the kernels of one GPU, in seconds."""

    link: Peers
    part: AttentionProblem
    choice: KernelChoice
    setting: Setting

    def attention(self, queries: int, keys: int, causal: bool) -> float:
        choice, part = self.choice, self.part
        copies = part.batch * part.q_heads // choice.tiling.pack
        schedule = _block(choice, queries, keys, causal).with_copies(copies)
        return attention_time(choice.spec, choice, schedule, part, self.setting).stages["launch"]

    def elementwise(self, kernels: Elementwise, queries: int) -> float:
        rows = self.part.batch * queries * self.part.q_heads
        values = rows * self.part.head_dim_v
        ops = [Memory("bytes", values * kernels.value_bytes + rows * kernels.row_bytes, kernels.launches)]
        ops += [Memory("addresses", 0, 0, values=values, form=k.form, divisions=k.divisions) for k in kernels.addressing]
        return sum(memory_op_seconds(self.choice.spec, op, None) for op in ops)

    def send(self) -> float:
        """K and V of a part to the next GPU."""
        part = self.part
        return self.link.send_seconds(
            part.batch * part.seq_kv * part.kv_heads * (part.head_dim + part.head_dim_v) * part.element_bytes
        )


def _block(choice: KernelChoice, queries: int, keys: int, causal: bool) -> TileSchedule:
    """One head of a dense or causal block."""
    layout = TokenLayout(grid=(max(queries, keys),))
    whole = Pattern("causal" if causal else "dense").schedule(layout, choice.tiling)
    return whole if queries == keys else whole.slice((0, queries), (0, keys))


def _iteration(graph: TaskGraph, calls: _Calls, gpus: int, order: Order) -> list[int]:
    """One call of ring attention on all GPUs; the last task of each GPU."""
    tokens, causal, costs = calls.part.seq_q, calls.part.causal, _costs()
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
            call, some = own if step == 0 or order == "striped" else full, False
            if step and causal:
                if order == "zigzag":
                    call = early if step <= rank else late
                elif order == "contiguous" and step > rank:
                    continue
                # The late half in zigzag; all but the first token of a stripe.
                some = step > rank
            waits = [task for task in (held[rank],) if task is not None]
            attended = graph.add(f"step {step} attention", f"gpu {rank}", seconds[call], waits)
            beside = calls.elementwise(costs.merge if step else costs.first, call[0])
            if some:
                beside += calls.elementwise(costs.slice, call[0])
            done[rank] = graph.add(f"step {step} merge", f"gpu {rank}", beside, [attended])
        held = arriving
    return [graph.add("output", f"gpu {rank}", calls.elementwise(costs.last, tokens)) for rank in range(gpus)]
