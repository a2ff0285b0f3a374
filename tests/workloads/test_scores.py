import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simattn.facts import UserError
from simattn.workloads.scores import Placement, draw_blocks, head_shares, row_loads


def rng(seed=0):
    return np.random.default_rng(seed)


@given(st.integers(1, 32), st.floats(0.01, 0.9), st.floats(0, 1.5))
def test_heads_keep_the_mean(heads, mean, spread):
    shares = head_shares(rng(heads), heads, mean, spread)
    assert shares.mean() == pytest.approx(mean, abs=1e-9)
    assert shares.min() > 0
    assert shares.max() <= 1


@given(st.integers(0, 5000), st.floats(0, 1.5), st.floats(0, 1))
def test_rows_keep_the_total_within_their_limits(total, imbalance, growth):
    visible, least = np.arange(1, 101), np.minimum(np.arange(1, 101), 2)
    loads = row_loads(rng(total), visible, least, total, imbalance=imbalance, growth=growth)
    assert loads.sum() == np.clip(total, least.sum(), visible.sum())
    assert ((least <= loads) & (loads <= visible)).all()


def test_no_rows_keep_nothing():
    none = np.zeros(0, np.int64)
    assert row_loads(rng(), none, none, 3).tolist() == []


def test_rows_grow_as_a_power_of_what_they_see():
    visible = np.arange(1, 2001)
    loads = row_loads(rng(), visible, np.zeros(2000, np.int64), 20000, growth=0.5)
    assert loads[1900:].mean() / loads[450:500].mean() == pytest.approx(2.0, abs=0.1)


@settings(deadline=None)
@given(
    st.integers(0, 50),
    st.integers(0, 3),
    st.integers(0, 3),
    st.integers(0, 4),
    st.sampled_from([0, 8]),
    st.sampled_from([0.2, 0.9]),
)
def test_a_row_holds_its_load_and_what_is_forced(seed, sinks, local, text, period, share):
    rows = columns = 40
    visible = np.full(rows, columns)
    diagonal = np.arange(rows)
    own = np.stack([np.maximum(diagonal + 1 - local, 0), diagonal + 1], axis=1)
    loads = np.full(rows, round(share * columns))
    lists = draw_blocks(rng(seed), loads, visible, own, sinks, columns - text, columns, Placement(0.5, 0.3, period=period))
    mask = np.zeros((rows, columns), bool)
    mask[np.repeat(diagonal, np.diff(lists.indptr)), lists.column] = True
    assert mask[:, :sinks].all()
    assert mask[:, columns - text :].all()
    for row in range(rows):
        assert mask[row, own[row, 0] : own[row, 1]].all()
    forced = np.zeros((rows, columns), bool)
    forced[:, :sinks] = forced[:, columns - text :] = True
    forced |= (np.arange(columns) >= own[:, :1]) & (np.arange(columns) < own[:, 1:])
    assert (mask.sum(1) == np.maximum(loads, forced.sum(1))).all()


def test_shares_of_more_than_all_are_refused():
    with pytest.raises(UserError, match="shares of one whole"):
        draw_blocks(rng(), np.ones(1, int), np.ones(1, int), np.zeros((1, 2), int), 0, 1, 1, Placement(0.8, 0.3))
