"""Sliding tile attention against the method's own tables and counts."""

from math import prod

import numpy as np
import pytest
from simattn.facts import UserError
from simattn.workloads.families import SlidingTile
from simattn.workloads.layout import Tiling, TokenLayout

HOPPER = Tiling(q=(192,), kv=(128,))
HUNYUAN = TokenLayout(grid=(30, 48, 80), text=256)


def test_oracle(oracle):
    cases = oracle("visual_sta")["cases"]
    assert len(cases) == 9
    for case in cases:
        family = SlidingTile(window=tuple(case["window"]), tile=tuple(case["tile"]))
        layout = TokenLayout(grid=tuple(case["canvas"]), text=case["text_tokens"])
        for axis, tile, ranges in zip(family.axes(layout), case["tile"], case["axis_ranges"], strict=True):
            low, high = axis.window_of(np.arange(0, axis.length, tile))
            assert np.stack([low, high], 1).tolist() == [[a * tile, b * tile] for a, b in ranges]
        s = family.schedule(layout, HOPPER)
        kernel = case["hopper_kernel"]
        assert s.blocks == (prod(case["tile"]), case["visited_tile_pairs"], prod(case["tiles"]) ** 2)
        assert round(s.blocks.active / s.blocks.total, 6) == case["density_video"]
        assert s.q_tiles == kernel["ctas"]
        assert set(s.counts.visited) == {kernel["img_kv_blocks_per_cta"] + kernel["text_kv_blocks_per_cta"]}


def test_windows_of_the_shipped_table(oracle):
    for row in oracle("visual_sta")["windows"]:
        s = SlidingTile(window=tuple(row["window"])).schedule(HUNYUAN, HOPPER)
        assert s.blocks.active == row["visited_tile_pairs"]
        assert round(s.blocks.active / s.blocks.total, 6) == row["density"]


@pytest.mark.parametrize(("tiles", "case"), [(3, "sta_table1_sta_12"), (5, "sta_table1_sta_20")])
def test_published_density(oracle, tiles, case):
    """Windows of 12 and 20 tokens in tiles of 4, of a cube of 48 (arXiv 2502.04507, table 1)."""
    row = oracle("visual_published_checks")[case]
    family = SlidingTile(window=(tiles,) * 3, tile=(4, 4, 4))
    s = family.schedule(TokenLayout(grid=(48, 48, 48)), Tiling(q=(64,), kv=(64,)))
    density = s.blocks.active / s.blocks.total
    assert round(density, 6) == row["density" if "density" in row else "dense"]
    assert round(density, 4) == row["published"]
    assert s.full == s.visited == s.blocks.active


@pytest.mark.parametrize("window", [(1, 2, 3), (2, 2, 2), (3, 6, 1), (4, 1, 2)])
def test_the_rule_of_the_code(window):
    """Even windows see as many tiles as the next odd ones, and borders push the window back."""
    tiles, tile = (4, 5, 3), (2, 2, 4)
    layout = TokenLayout(grid=tuple(n * t for n, t in zip(tiles, tile, strict=True)))
    seen = SlidingTile(window=window, tile=tile).schedule(layout, Tiling(q=(16,), kv=(16,))).to_mask()[0]

    def sides(q, n, k):
        half = k // 2
        centre = half if q < half else min(q, n - 1 - half)
        return set(range(max(centre - half, 0), min(centre + half, n - 1) + 1))

    expected = np.zeros(seen.shape, bool)
    for q in np.ndindex(*tiles):
        allowed = [sides(*args) for args in zip(q, tiles, window, strict=True)]
        for k in np.ndindex(*tiles):
            expected[np.ravel_multi_index(q, tiles), np.ravel_multi_index(k, tiles)] = all(
                b in a for a, b in zip(allowed, k, strict=True)
            )
    assert (seen == expected).all()


def test_text_is_padded_to_a_tile_and_masked():
    family = SlidingTile(window=(3, 3, 3))
    without, with_text = (family.schedule(TokenLayout(grid=HUNYUAN.grid, text=t), HOPPER) for t in (0, 256))
    assert with_text.pairs == without.pairs + 115200 * 256
    assert with_text.visited == without.visited + 600 * 3
    assert with_text.partial == 600
    assert with_text.live_area() == with_text.pairs
    assert (with_text.mask_free, without.mask_free) == (False, True)
    assert (with_text.seq_q, with_text.seq_kv) == (115200, 115456)


@pytest.mark.parametrize("tiling", [Tiling(q=(128,), kv=(64,)), Tiling(q=(128,), kv=(128,)), Tiling(q=(256,), kv=(128,))])
def test_any_kernel_for_blocks_runs_it(tiling):
    s = SlidingTile(window=(3, 3, 3)).schedule(HUNYUAN, tiling)
    assert s.pairs == 8100 * 384**2 + 115200 * 256
    assert s.visited * s.q_tile * s.kv_tile >= s.pairs


@pytest.mark.parametrize(
    ("params", "layout", "tiling", "message"),
    [
        ({"window": (3, 3, 3)}, TokenLayout(grid=(30, 45, 80)), HOPPER, "must be whole tiles of"),
        ({"window": (3, 3)}, HUNYUAN, HOPPER, "one per axis of the grid"),
        ({"window": (3, 3, 3)}, HUNYUAN, Tiling(q=(4, 8, 8), kv=(2, 8, 8)), "takes tiles of one number"),
        ({"window": (3, 3, 3)}, HUNYUAN, Tiling(q=(192,), kv=(128,), pack=4), "packed GQA heads"),
    ],
)
def test_what_does_not_fit_is_refused(params, layout, tiling, message):
    with pytest.raises(UserError, match=message):
        SlidingTile(**params).schedule(layout, tiling)
