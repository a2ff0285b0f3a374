"""Every family that is defined by a mask on tokens against FlexAttention's own block masks."""

from functools import partial

import numpy as np
import pytest
from simattn.workloads import schedule
from simattn.workloads.families import Band, Box, Documents, FrameBand, MemoryBand
from simattn.workloads.layout import Tiling, TokenLayout

torch = pytest.importorskip("torch")
flex = pytest.importorskip("torch.nn.attention.flex_attention")

BANDS = {
    "dense": Band(),
    "causal": Band(causal=True),
    "window": Band(window=40),
    "even window": Band(window=64),
    "two sides": Band(window=(20, 9)),
    "window beyond the end": Band(window=1000),
    "sinks": Band(window=30, sinks=20),
    "global": Band(window=(16, 16), global_tokens=20),
    "global and sinks": Band(window=(16, 16), global_tokens=5, sinks=40),
}
BOXES = {
    "1-D": (Box(window=33), (192,)),
    "1-D stride": (Box(window=32, stride=16), (192,)),
    "1-D causal": (Box(window=20, stride=4, causal=True), (192,)),
    "1-D even": (Box(window=32), (192,)),
    "2-D": (Box(window=(5, 7)), (16, 12)),
    "2-D even": (Box(window=(4, 6)), (16, 12)),
    "2-D stride": (Box(window=(8, 6), stride=(4, 3)), (16, 12)),
    "2-D causal": (Box(window=(5, 7), causal=(True, False)), (16, 12)),
    "2-D all of one axis": (Box(window=(5, 12), stride=(2, 12)), (16, 12)),
    "3-D": (Box(window=(3, 3, 3)), (4, 6, 8)),
    "3-D even": (Box(window=(2, 4, 4), stride=(1, 2, 4)), (4, 6, 8)),
    "2-D cut": (Box(window=(5, 7), border="cut"), (16, 12)),
    "2-D halos": (Box(window=(8, 10), stride=(4, 6), border="cut"), (16, 12)),
    "3-D causal": (Box(window=(3, 5, 3), causal=(True, False, False)), (4, 6, 8)),
}
DILATED = {
    "1-D": (Box(window=9, dilation=4), (100,)),
    "2-D": (Box(window=(3, 4), stride=(2, 1), dilation=(2, 3)), (9, 13)),
    "3-D": (Box(window=(2, 2, 3), dilation=(1, 3, 2), causal=(True, False, False)), (4, 7, 8)),
}


def dense(counts, indices, columns):
    """Block lists of a BlockMask as bool [heads, rows, columns]."""
    mask = np.zeros((*counts.shape[1:], columns), bool)
    for head, row in np.ndindex(mask.shape[:2]):
        mask[head, row, indices[0, head, row, : counts[0, head, row]].numpy()] = True
    return mask


def blocks_of(block_mask, columns):
    """Partial and full blocks of a BlockMask."""
    return (
        dense(block_mask.kv_num_blocks, block_mask.kv_indices, columns),
        dense(block_mask.full_kv_num_blocks, block_mask.full_kv_indices, columns),
    )


def visible_by_torch(family, layout, b, h, q, k):
    return family.visible(q, k, layout)


def assert_same_as_torch(family, layout, q_tile, kv_tile):
    """`layout.query_tokens` must be a multiple of q_tile: torch never calls a tile with padded queries full."""
    s = family.schedule(layout, Tiling(q=(q_tile,), kv=(kv_tile,)))
    want = flex.create_block_mask(
        partial(visible_by_torch, family, layout),
        B=None, H=None, Q_LEN=layout.query_tokens, KV_LEN=layout.tokens, device="cpu", BLOCK_SIZE=(q_tile, kv_tile),
    )  # fmt: skip
    masked, full = blocks_of(want, s.kv_tiles)
    assert (s.to_mask() == (masked | full)).all()
    assert (s.full_mask() == full).all()
    ours = s.to_block_mask()
    for mine, theirs in zip(blocks_of(ours, s.kv_tiles), (masked, full), strict=True):
        assert (mine == theirs).all()
    assert ours.seq_lengths == want.seq_lengths
    assert (ours.to_dense() == want.to_dense()).all()
    assert ours.sparsity() == want.sparsity()


@pytest.mark.parametrize("tiles", [(32, 32), (64, 16), (16, 48)])
@pytest.mark.parametrize("queries", [192, 64])
@pytest.mark.parametrize("name", BANDS)
def test_band(name, queries, tiles):
    assert_same_as_torch(BANDS[name], TokenLayout(grid=(192,), queries=queries % 192), *tiles)


@pytest.mark.parametrize("causal", [False, True])
def test_documents(causal):
    family = Documents(lengths=(50, 14, 1, 63, 64), causal=causal)
    assert_same_as_torch(family, TokenLayout(grid=(192,)), 32, 16)


@pytest.mark.parametrize("tiles", [(32, 32), (64, 16), (128, 128)])
@pytest.mark.parametrize("variant", ["hunyuan", "wan", "re-ttention"])
def test_band_in_memory_order(variant, tiles):
    layout = TokenLayout(grid=(3, 256), text=128 * (variant == "hunyuan"))
    assert_same_as_torch(MemoryBand(keep=0.7, variant=variant, prompt=70 * (variant == "hunyuan")), layout, *tiles)


@pytest.mark.parametrize("tiles", [(32, 32), (24, 16), (64, 48)])
@pytest.mark.parametrize("name", [name for name, (_, grid) in BOXES.items() if len(grid) > 1])
def test_box_under_flat_tiles(name, tiles):
    family, grid = BOXES[name]
    assert_same_as_torch(family, TokenLayout(grid=grid), *tiles)


@pytest.mark.parametrize("name", [name for name, (_, grid) in BOXES.items() if len(grid) == 1])
def test_box_on_a_line(name):
    family, grid = BOXES[name]
    assert_same_as_torch(family, TokenLayout(grid=grid), 32, 16)


@pytest.mark.parametrize("name", DILATED)
def test_dilated_boxes(name, same):
    """Flat tiles are refused, so that the tiles of the permuted grid are compared with brute force; torch sees the mask."""
    family, grid = DILATED[name]
    layout, axes = TokenLayout(grid=grid), len(grid)
    same(family, layout, Tiling(q=(2,) * axes, kv=(3,) * axes))
    i = np.arange(layout.tokens)
    mask = flex.create_mask(partial(visible_by_torch, family, layout), None, None, layout.tokens, layout.tokens, device="cpu")
    assert (mask[0, 0].numpy() == family.visible(i[:, None], i[None, :], layout)).all()


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
def test_flex_attention_computes_the_masked_softmax():
    """The exported mask is one that torch can run."""
    layout, family = TokenLayout(grid=(256,)), Band(window=50, sinks=8)
    s = family.schedule(layout, Tiling(q=(128,), kv=(128,)))
    exported = s.to_block_mask()
    exported.mask_mod = partial(visible_by_torch, family, layout)
    generator = torch.Generator().manual_seed(0)
    q, k, v = (torch.randn(1, 1, 256, 16, generator=generator) for _ in range(3))
    i = torch.arange(256)
    seen = family.visible(i[:, None], i[None, :], layout)
    want = torch.nn.functional.scaled_dot_product_attention(q, k, v, attn_mask=seen)
    torch.testing.assert_close(flex.flex_attention(q, k, v, block_mask=exported), want)


def test_blocks_without_a_mask_are_all_full():
    s = FrameBand(decay=0.5).schedule(TokenLayout(grid=(6, 256), text=128), Tiling(q=(128,), kv=(128,)))
    masked, full = blocks_of(s.to_block_mask(), s.kv_tiles)
    assert not masked.any()
    assert (full == s.to_mask()).all()


def test_padded_queries_are_ignored_here_and_masked_by_torch():
    s = schedule("dense", seq_q=100, q_tile=64, kv_tile=50)
    assert s.full_mask()[0].tolist() == [[True, True], [True, True]]
    want = flex.create_block_mask(lambda b, h, q, k: q >= 0, None, None, 100, 100, device="cpu", BLOCK_SIZE=(64, 50))
    assert blocks_of(want, 2)[1][0].tolist() == [[True, True], [False, False]]
