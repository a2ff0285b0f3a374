"""Batches of small dense attentions: windows, halos, axes, proxies and Monarch attention."""

from math import prod

import numpy as np
import pytest
from simattn.facts import UserError
from simattn.workloads.families import Box, Structured
from simattn.workloads.layout import Tiling, TokenLayout

FLAT = Tiling(q=(64,), kv=(64,))


def seen_by_force(box, keys, shift, grid):
    """Live pairs of windows with a halo, or of windows shifted cyclically with the mask of their regions."""
    total = 1
    for length, b, k, s in zip(grid, box, keys, shift, strict=True):
        i = np.arange(length)
        window = (i - s) % length // b
        region = np.where(i < s, -1, 0) if s else np.zeros_like(i)
        low, high = window * b - (k - b) // 2, window * b + b + (k - b) // 2
        j = i if s == 0 else (i - s) % length
        seen = (j[None, :] >= low[:, None]) & (j[None, :] < high[:, None]) & (region[:, None] == region[None, :])
        total *= int(seen.sum())
    return total


@pytest.mark.parametrize(
    ("grid", "box", "keys", "shift"),
    [
        ((56, 56), (7, 7), (7, 7), (0, 0)),
        ((56, 56), (7, 7), (7, 7), (3, 3)),
        ((50, 33), (7, 7), (7, 7), (0, 0)),
        ((32, 32), (8, 8), (14, 14), (0, 0)),
        ((20, 32), (8, 8), (14, 14), (0, 0)),
        ((8, 28, 28), (8, 7, 7), (8, 7, 7), (4, 3, 3)),
    ],
)
def test_pairs_by_brute_force(grid, box, keys, shift):
    s = Structured(box=box, keys=keys, shift=shift).schedule(TokenLayout(grid=grid), FLAT)
    boxes = prod(-(-n // b) for n, b in zip(grid, box, strict=True))
    # The shift of an axis that is one box changes nothing but for the mask.
    assert s.pairs == seen_by_force(box, keys, shift, grid)
    assert s.copies == boxes
    assert s.visited == boxes * -(-prod(box) // 64) * -(-prod(keys) // 64)


def test_swin_pads_its_windows():
    even, ragged = (Structured(box=7).schedule(TokenLayout(grid=(n, n)), FLAT) for n in (56, 50))
    assert even.visited == ragged.visited == 64
    assert (even.full, even.partial, ragged.partial) == (0, 64, 64)
    assert sum(int(ragged.row_live[g.first_row : g.first_row + g.rows].sum()) * g.copies for g in ragged.groups) == 2500


def test_halo_is_the_box_family_with_a_cut_border():
    grid = (32, 40)
    box = Box(window=(14, 14), stride=(8, 8), border="cut").schedule(TokenLayout(grid=grid), Tiling(q=(8, 8), kv=(1, 1)))
    assert Structured(box=8, keys=(14, 14)).schedule(TokenLayout(grid=grid), FLAT).pairs == box.pairs


def test_axes():
    grid = (16, 64, 96)
    pairs = [
        Structured(box=tuple(0 if i == axis else 1 for i in range(3))).schedule(TokenLayout(grid=grid), FLAT).pairs
        for axis in range(3)
    ]
    assert sum(pairs) == prod(grid) * sum(grid)


def test_monarch_stages(oracle):
    """FLOPs of both stages; the first multiplies R with K and with V, the second with Y alone."""
    cases = oracle("visual_misc")["monarch"]
    assert len(cases) == 3
    for case in cases:
        layout = TokenLayout(grid=(case["f"], case["b1"], case["b2"]))
        rows = Structured(box=(1, 1, 0), repeat=0).schedule(layout, FLAT)
        columns = Structured(box=(1, 0, 1), keys=(0, 0, 1)).schedule(layout, FLAT)
        # Of all frames of queries here: the vectors have `a` of them.
        share = case["a"] / case["f"]
        assert 6 * rows.pairs * case["d"] * share == case["flops_stage1"]
        assert 4 * columns.pairs * case["d"] * share == case["flops_stage2"]
        dense = 4 * case["a"] * case["f"] * (case["b1"] * case["b2"]) ** 2 * case["d"]
        assert dense == case["dense"]
        assert round(dense / (case["flops_stage1"] + case["flops_stage2"]), 3) == case["ratio"]
        assert columns.copies == case["f"] * case["b2"]
        assert rows.copies == case["f"] ** 2 * case["b1"]


def test_proxies():
    """One token of each 2 x 4 x 4 window stands for it: among themselves, then seen by all."""
    layout, w = TokenLayout(grid=(8, 32, 32)), 32
    among = Structured(box=0, thin_q=(2, 4, 4), thin_k=(2, 4, 4)).schedule(layout, FLAT)
    by_all = Structured(box=0, thin_k=(2, 4, 4)).schedule(layout, FLAT)
    assert (among.pairs, by_all.pairs) == ((layout.tokens // w) ** 2, layout.tokens**2 // w)
    assert among.copies == by_all.copies == 1


def test_copied_keys():
    """BiFormer: a region of 8 x 8 sees the keys of four regions."""
    s = Structured(box=8, keys=256).schedule(TokenLayout(grid=(56, 56)), FLAT)
    assert (s.copies, s.visited, s.pairs) == (49, 49 * 4, 49 * 64 * 256)
    assert (s.full, s.max_visited, s.mask_free) == (s.visited, 4, True)


@pytest.mark.parametrize(
    ("params", "layout", "message"),
    [
        ({"box": (7, 7, 7)}, TokenLayout(grid=(56, 56)), "one per axis of the grid"),
        ({"box": 7, "keys": (8, 8)}, TokenLayout(grid=(56, 56)), "as far on both sides"),
        ({"box": 7, "shift": 3}, TokenLayout(grid=(50, 56)), "whole boxes and no halo, got shift 3 of 7 on 50"),
        ({"box": 7, "thin_k": 2}, TokenLayout(grid=(56, 56)), "sees all keys of an axis"),
        ({"box": 7}, TokenLayout(grid=(56, 56), text=8), "nor text"),
    ],
)
def test_what_does_not_fit_is_refused(params, layout, message):
    with pytest.raises(UserError, match=message):
        Structured(**params).schedule(layout, FLAT)
