import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from simattn.workloads import selection

shares = st.integers(0, 100).map(
    lambda seed: (lambda a: a / a.sum(-1, keepdims=True))(np.random.default_rng(seed).random((2, 6, 9)) ** 4)
)


@given(shares, st.integers(1, 12))
def test_top_k_keeps_the_highest(scores, k):
    kept = selection.top_k(scores, k)
    assert (kept.sum(-1) == min(k, 9)).all()
    assert (np.where(kept, scores, np.inf).min(-1) >= np.where(kept, -np.inf, scores).max(-1)).all()


def test_top_k_of_each_row():
    scores = np.array([[3.0, 2.0, 1.0], [1.0, 2.0, 3.0], [1.0, -np.inf, -np.inf]])
    assert selection.top_k(scores, np.array([1, 2, 2])).tolist() == [
        [True, False, False], [False, True, True], [True, False, False]]  # fmt: skip
    assert not selection.top_k(scores, 0).any()


@given(shares, st.floats(0.05, 0.95))
def test_mass_is_reached_and_no_block_is_idle(scores, mass):
    for kept, axis in ((selection.row_mass(scores, mass), -1), (selection.global_mass(scores, mass), (-1, -2))):
        held, all_of_it = (scores * kept).sum(axis), scores.sum(axis)
        least = np.where(kept, scores, np.inf).min(axis)
        assert (held >= mass * all_of_it - 1e-12).all()
        assert (held - least < mass * all_of_it + 1e-12).all()


def test_global_threshold_drops_a_share_but_for_the_edge():
    scores = np.random.default_rng(0).permutation(990.0**2 // 1 * np.arange(1, 901)).reshape(1, 30, 30)
    assert selection.global_threshold(scores, 0.9).sum() == 900 - 810 + 1
    ties = np.zeros((1, 3, 3))
    assert selection.global_threshold(ties, 0.5).all()


def test_thresholds():
    scores = np.array([[0.1, 0.6, 0.3]])
    assert selection.threshold(scores, 0.3).tolist() == [[False, True, False]]
    assert selection.relative_threshold(scores, 0.5).tolist() == [[False, True, True]]


@pytest.mark.parametrize(("last_rows", "kept"), [(0, 2 + 2 + 3 + 3), (1, 2 + 2 + 3 + 4)])
def test_forced_blocks(last_rows, kept):
    diagonal = np.stack([np.arange(4) - 1, np.arange(4) + 1], 1)
    mask = selection.forced(4, 4, sinks=1, local=diagonal, last_rows=last_rows)
    assert mask.sum() == kept - 1
    assert mask[:, 0].all()
