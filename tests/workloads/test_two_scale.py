"""Scale-DiT's masks against the builder of the method's code, block for block."""

import hashlib

import numpy as np
import pytest
from simattn.facts import UserError
from simattn.workloads.families import TwoScale
from simattn.workloads.layout import Tiling, TokenLayout

BLOCKS = Tiling(q=(128,), kv=(64,))


def test_oracle(oracle):
    cases = oracle("visual_scaledit")["cases"]
    assert len(cases) == 3
    for case in cases:
        height, width = (n // 16 for n in case["image"])
        layout = TokenLayout(grid=(height, width), text=case["tokens"] - height * width)
        s = TwoScale().schedule(layout, BLOCKS)
        rows = s.counts.visited
        assert [s.q_tiles, s.kv_tiles] == case["grid"]
        assert (s.visited, rows.min(), s.max_visited) == (case["active"], case["row_min"], case["row_max"])
        assert round(rows.mean(), 2) == case["row_mean"]
        assert round(s.visited / s.q_tiles / s.kv_tiles, 6) == case["density"]
        assert hashlib.sha256(s.to_mask()[0].astype(np.uint8).tobytes()).hexdigest() == case["sha256"]
        assert s.full == s.visited
        assert s.blocks == (128, case["active"], s.q_tiles * s.kv_tiles)


@pytest.mark.parametrize("tiling", [Tiling(q=(64,), kv=(128,)), Tiling(q=(128,), kv=(128,)), Tiling(q=(256,), kv=(128,))])
def test_other_tiles_visit_the_same_pairs_and_more(tiling):
    layout = TokenLayout(grid=(128, 128), text=512 + 32 * 32)
    own, other = (TwoScale().schedule(layout, t) for t in (BLOCKS, tiling))
    assert other.pairs == own.pairs
    assert other.tile_area >= own.tile_area


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        (TokenLayout(grid=(120, 128), text=2048), "whole windows of 16"),
        (TokenLayout(grid=(4, 128, 128), text=2048), "whole windows of 16"),
        (TokenLayout(grid=(128, 128), text=512), "must hold the 1024 tokens of the small copy"),
        (TokenLayout(grid=(128, 128), text=1025), "must be whole blocks of 128 x 64"),
    ],
)
def test_what_does_not_fit_is_refused(layout, message):
    with pytest.raises(UserError, match=message):
        TwoScale().schedule(layout, BLOCKS)
