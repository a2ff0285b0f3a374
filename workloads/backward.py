"""Backward: the gradients of an attention call, and the kernels before and behind the one that computes them."""

from __future__ import annotations

from .kv_major import by_keys
from .problem import AttentionProblem
from .schedule import TileSchedule


def backward_schedule(schedule: TileSchedule, problem: AttentionProblem) -> TileSchedule:
    """The work of the main kernel over all heads and items: CTAs own keys of one query head, and visit its queries.

    Where query heads share K and V, each of them adds its part of dK and dV in memory.
    """
    return by_keys(schedule).with_copies(problem.batch * problem.q_heads)


def preprocess_bytes(problem: AttentionProblem) -> int:
    """Bytes of the kernel before: O and dO are read, their row sums written, and the fp32 sum of dQ is cleared.

    >>> preprocess_bytes(AttentionProblem(q_heads=1, seq_q=1024, head_dim=128)) == 1024 * (2 * 128 * 2 + 4 + 128 * 4)
    True
    """
    row = 2 * problem.head_dim_v * problem.element_bytes + 4 + 4 * problem.head_dim
    return problem.batch * problem.q_heads * problem.seq_q * row


def postprocess_bytes(problem: AttentionProblem) -> tuple[int, ...]:
    """Bytes of the kernels behind: fp32 sums are read, gradients written. One for dQ; two more where dK and dV are summed too.

    >>> [n // 2**20 for n in postprocess_bytes(AttentionProblem(q_heads=8, kv_heads=2, seq_q=8192, head_dim=128))]
    [48, 12, 12]
    """
    each = 4 + problem.element_bytes
    keys = problem.batch * problem.kv_heads * problem.seq_kv * each
    shared = (keys * problem.head_dim, keys * problem.head_dim_v) if problem.gqa_group > 1 else ()
    return (problem.batch * problem.q_heads * problem.seq_q * problem.head_dim * each, *shared)
