"""Token orders, and schedules of tokens that lie in another order, against the mask of single tokens."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simattn.facts import UserError
from simattn.workloads import TokenLayout, schedule
from simattn.workloads.families import Box
from simattn.workloads.orders import box_of, token_order
from simattn.workloads.reorder import reordered

ORDERS = ("rows", "blocks", "morton", "hilbert")


@given(st.sampled_from(ORDERS), st.lists(st.integers(1, 13), min_size=1, max_size=3), st.integers(0, 9))
@settings(max_examples=60, deadline=None)
def test_an_order_is_a_permutation_with_text_last(order, grid, text):
    layout = TokenLayout(grid=tuple(grid), text=text)
    found = token_order(order, layout, 16)
    assert sorted(found.tolist()) == list(range(layout.tokens))
    assert found[layout.tokens - text :].tolist() == list(range(layout.tokens - text, layout.tokens))


@pytest.mark.parametrize("grid", [(16,), (8, 8), (16, 16), (4, 4, 4), (8, 8, 8)])
def test_hilbert_goes_from_neighbour_to_neighbour(grid):
    places = np.stack(np.unravel_index(token_order("hilbert", TokenLayout(grid=grid)), grid))
    assert (np.abs(np.diff(places, axis=1)).sum(0) == 1).all()


def test_morton_and_blocks_fill_boxes():
    for order, tile in (("morton", 1), ("blocks", 16)):
        places = np.stack(np.unravel_index(token_order(order, TokenLayout(grid=(16, 16)), tile), (16, 16)))
        first = places[:, :16]
        assert (first.max(1) - first.min(1)).tolist() == [3, 3]


def test_boxes_are_near_cubes():
    assert [box_of(64, axes) for axes in (1, 2, 3)] == [(64,), (8, 8), (4, 4, 4)]
    assert box_of(256, 3) == (4, 8, 8)


def tiles_of(seen, q_tile, kv_tile):
    rows, columns = (-(-n // t) for n, t in zip(seen.shape, (q_tile, kv_tile), strict=True))
    padded = np.zeros((rows * q_tile, columns * kv_tile), bool)
    padded[: seen.shape[0], : seen.shape[1]] = seen
    live = np.zeros_like(padded)
    live[: seen.shape[0], : seen.shape[1]] = True
    cut = padded.reshape(rows, q_tile, columns, kv_tile), live.reshape(rows, q_tile, columns, kv_tile)
    return cut[0].any((1, 3)), (cut[0] == cut[1]).all((1, 3))


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize(
    ("grid", "window", "stride", "causal"),
    [
        ((12, 20), (5, 7), (2, 3), False),
        ((7, 9), (7, 3), (1, 1), (False, True)),
        ((5, 6, 7), (3, 5, 4), (1, 2, 4), False),
        ((50,), (11,), (4,), (True,)),
    ],
)
def test_boxes_of_keys_in_any_order(order, grid, window, stride, causal):
    layout, rule = TokenLayout(grid=grid), Box(window=window, stride=stride, causal=causal, order=order)
    tokens = token_order(order, layout, 16)
    seen = np.broadcast_to(rule.visible(tokens[:, None], tokens[None, :], layout), (layout.tokens, layout.tokens))
    s = schedule("gna", grid=grid, window=window, stride=stride, causal=causal, order=order, q_tile=16, kv_tile=24)
    visited, full = tiles_of(seen, 16, 24)
    assert (s.to_mask()[0] == visited).all()
    assert (s.full_mask()[0] <= full).all()
    assert s.pairs == seen.sum()
    if order != "rows":
        assert (s.full_mask()[0] == full).all()


@pytest.mark.parametrize("order", ORDERS)
def test_a_schedule_in_another_order(order):
    layout = TokenLayout(grid=(16, 20))
    s = schedule("sliding_window", seq_q=320, window=(60, 60), causal=False, q_tile=16, kv_tile=16)
    order_of = token_order(order, layout, 16)
    computed = np.repeat(np.repeat(s.to_mask()[0], 16, 0), 16, 1)[:320, :320]
    full = np.repeat(np.repeat(s.full_mask()[0], 16, 0), 16, 1)[:320, :320]
    found = reordered(s, order_of, 32, 40)
    visited, _ = tiles_of(computed[np.ix_(order_of, order_of)], 32, 40)
    assert (found.to_mask()[0] == visited).all()
    # Runs of keys need not begin on tiles, so that more is known of them than of whole tiles.
    assert (found.full_mask()[0] >= tiles_of(full[np.ix_(order_of, order_of)], 32, 40)[1]).all()
    assert found.pairs == s.pairs


def test_boxes_cannot_be_put_in_another_order():
    boxes = schedule("gna", grid=(16, 16), window=(4, 4), q_tile=(4, 4), kv_tile=(4, 4))
    with pytest.raises(UserError, match="another order"):
        reordered(boxes, np.arange(256), 16, 16)


def test_only_permuted_orders_are_paid_for():
    from simattn.hwspecs import gpus
    from simattn.simulator import question, simulate

    def beside(order):
        asked = question("gna", grid=(64, 64), text=0, q_heads=8, params={"window": (9, 9), "order": order})
        return [op.op for op in simulate(asked, gpus.load("h100")).side]

    assert beside("rows") == []
    assert beside("morton") == ["permute"]
