"""Schedules that were drawn at random are built once."""

import numpy as np
import pytest
from simattn.workloads import AttentionProblem, Pattern, Tiling, TokenLayout
from simattn.workloads.families import Band, PooledSelect
from simattn.workloads.remembered import _kept, remembered


def plan_of(name, seed=0, batch=1, q=128):
    problem = AttentionProblem(batch=batch, q_heads=4, seq_q=4096, head_dim=128)
    pattern = Pattern(name, published=True, seed=seed)
    (op,) = pattern.plan(problem, TokenLayout(grid=(4096,)), lambda mask, kernel: Tiling(q=(q,), kv=(64,)))
    return op.schedule


@pytest.fixture(autouse=True)
def _nothing_kept():
    _kept.clear()
    yield
    _kept.clear()


def test_what_is_drawn_is_drawn_once(monkeypatch):
    first = plan_of("blasst")
    monkeypatch.setattr(PooledSelect, "_drawn", None)
    again = plan_of("blasst", batch=3)
    assert again.runs is first.runs
    assert again.visited == 3 * first.visited
    for other in ({"seed": 1}, {"q": 64}):
        with pytest.raises(TypeError):
            plan_of("blasst", **other)


def test_only_so_much_is_kept(monkeypatch):
    one = plan_of("blasst")
    monkeypatch.setattr("simattn.workloads.remembered.MOST_BYTES", 1)
    other = plan_of("blasst", seed=1)
    assert len(_kept) == 1
    assert plan_of("blasst", seed=1).runs is other.runs
    redrawn = plan_of("blasst")
    assert redrawn.runs is not one.runs
    assert np.array_equal(redrawn.runs.start, one.runs.start)


def test_what_is_not_drawn_is_not_kept():
    plan_of("causal")
    built = []
    for _ in range(2):
        remembered((Band(),), lambda: built.append(1))
    assert len(built) == 2
    assert not _kept
