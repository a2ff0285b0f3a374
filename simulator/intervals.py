"""The two classic bounds of a loop, beside which a simulated interval can be judged: its busiest unit, and its longest cycle."""

from __future__ import annotations

from typing import NamedTuple

import networkx as nx

from ..kernels import Kind, LoopProgram


class Intervals(NamedTuple):
    """Least cycles between two tiles, as in software pipelining.

    Attributes
    ----------
    resource : float
        ResMII: cycles that the busiest unit needs for a tile, `unit`; cycles that softmax steals from the tensor core included.
    recurrence : float
        RecMII: the longest cycle of dependences, over the tiles that it spans.
    """

    resource: float
    unit: str
    recurrence: float


def intervals(program: LoopProgram, kind: Kind = "plain") -> Intervals:
    """Both bounds of a loop program, of one CTA alone.

    The recurrence is found by bisection: an interval is long enough if no cycle takes longer than it times the tiles spanned.

    Examples
    --------
    >>> from simattn.hwspecs import gpus
    >>> from simattn.kernels import build, kernels
    >>> fa4 = build(kernels.load("fa4"), gpus.load("b200"), q_rows=256, kv_rows=128, head_dim=128, head_dim_v=128,
    ...             element_bytes=2, stages=2, warps=16, tensor_rate=8192, mask_alu=0)
    >>> found = intervals(fa4)
    >>> found.unit, found.resource, bool(found.recurrence > found.resource)
    ('tensor', 2048.0, True)
    """
    taken = program.unit_cycles(kind)
    taken["tensor"] += sum(op.steals[kind] for op in program.ops)
    unit = max(taken, key=lambda name: taken[name])
    edges = _edges(program, kind)
    low, high = 0.0, sum(max(cycles, 0.0) for _, _, cycles, _ in edges) + 1
    while high - low > 0.5:
        middle = (low + high) / 2
        graph = nx.DiGraph()
        for source, target, cycles, distance in edges:
            weight = middle * distance - cycles
            if not graph.has_edge(source, target) or weight < graph[source][target]["weight"]:
                graph.add_edge(source, target, weight=weight)
        low, high = (middle, high) if nx.negative_edge_cycle(graph) else (low, middle)
    return Intervals(taken[unit], unit, high)


def _edges(program: LoopProgram, kind: Kind) -> list[tuple[int, int, float, int]]:
    """(op, later op, cycles between their starts, loop rounds between them)."""
    found = []
    for number, op in enumerate(program.ops):
        for edge in op.after:
            other = program.ops[edge.op]
            cycles = edge.wait + (0.0 if edge.on_issue else other.length[kind] + other.latency[kind])
            found.append((edge.op, number, cycles, edge.distance + other.ahead - op.ahead))
    for role in range(len(program.roles)):
        own = [number for number, op in enumerate(program.ops) if op.role == role]
        for before, after in zip(own, own[1:] + own[:1], strict=True):
            op = program.ops[before]
            cycles = 0.0 if op.runs_on else max(op.length[kind], op.length[kind] + op.latency[kind])
            found.append((before, after, cycles, int(after <= before)))
    return found
