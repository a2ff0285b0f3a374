"""The neighborhood kernel on the interpreter against float64, on grids of one to three axes."""

import numpy as np
import pytest
from simattn.facts import UserError
from simattn.kernels.triton import tokens
from simattn.workloads.families import Box
from simattn.workloads.layout import Tiling, TokenLayout

torch = pytest.importorskip("torch")
triton = pytest.importorskip("triton")
neighborhood = pytest.importorskip("simattn.kernels.triton.neighborhood")
reference = pytest.importorskip("simattn.kernels.triton.reference")

pytestmark = pytest.mark.skipif(
    not neighborhood.forward.INTERPRETED or (triton.__version__ < "3.7" and np.__version__ >= "2.4"),
    reason="triton was imported before these tests, or its interpreter does not know this numpy",
)

CASES = {
    "line": (Box(window=33), (100,), 0, (16,), (32,)),
    "line, causal": (Box(window=20, stride=4, causal=True), (100,), 0, (32,), (16,)),
    "line, dilated": (Box(window=9, dilation=3), (100,), 0, (16,), (16,)),
    "plane": (Box(window=(5, 7)), (9, 13), 0, (4, 8), (2, 8)),
    "plane, even window": (Box(window=(4, 6), stride=(3, 2)), (9, 13), 5, (4, 4), (4, 8)),
    "plane, one axis causal": (Box(window=(5, 7), causal=(True, False)), (9, 13), 0, (4, 8), (4, 8)),
    "plane, dilated": (Box(window=(3, 4), stride=(2, 1), dilation=(2, 3)), (9, 13), 0, (4, 4), (4, 4)),
    "space": (Box(window=(3, 5, 3), stride=(1, 2, 1)), (4, 6, 7), 20, (2, 4, 4), (2, 2, 4)),
    "space, causal": (Box(window=(3, 3, 3), causal=True), (4, 6, 5), 0, (2, 4, 4), (2, 2, 4)),
    "whole tiles": (Box(window=(8, 8), stride=(4, 8)), (16, 16), 0, (4, 8), (2, 8)),
}


@pytest.mark.parametrize("name", CASES)
def test_neighborhoods(name):
    family, grid, text, q_tile, kv_tile = CASES[name]
    dtype = [torch.float16, torch.bfloat16][list(CASES).index(name) % 2]
    layout, tiling = TokenLayout(grid=grid, text=text), Tiling(q=q_tile, kv=kv_tile)
    points = int(np.prod(grid))
    generator = torch.Generator().manual_seed(0)
    q = torch.randn(1, 2, points, 16, generator=generator).to(dtype)
    k, v = (torch.randn(1, 1, points + text, 16, generator=generator).to(dtype) for _ in range(2))
    at = np.arange(points)
    seen = np.ones((points, points + text), bool)
    seen[:, :points] = family.visible(at[:, None], at[None, :], layout)
    want, want_lse = reference.attention(q, k, v, seen)

    dilation = tuple(axis.dilation for axis in family.axes(layout))
    of_q, of_kv = tokens.boxes(grid, q_tile, dilation), tokens.boxes(grid, kv_tile, dilation)
    keys, values = (torch.cat([tokens.gather_tokens(x[:, :, :points], of_kv), x[:, :, points:]], dim=2) for x in (k, v))
    got = neighborhood.neighborhood(tokens.gather_tokens(q, of_q), keys, values, family, layout, tiling)
    o, lse = (tokens.scatter_tokens(x, of_q) for x in got)
    torch.testing.assert_close(o.double(), want, atol=2e-3 if dtype == torch.float16 else 1.6e-2, rtol=0)
    torch.testing.assert_close(lse.double(), want_lse, atol=2e-5, rtol=1e-5)


@pytest.mark.parametrize("name", CASES)
def test_masks_are_left_out_only_where_no_tile_needs_one(name):
    family, grid, text, q_tile, kv_tile = CASES[name]
    layout, tiling = TokenLayout(grid=grid, text=text), Tiling(q=q_tile, kv=kv_tile)
    constants = neighborhood.rule(family, layout, tiling)
    runs = family.schedule(layout, tiling).runs
    assert constants["MASKED"] == bool((runs.kind[runs.start < family.permuted(layout, tiling)[1]] == 1).any())
    assert constants["MASKED"] == (name != "whole tiles")


def test_calls_that_do_not_fit():
    q = torch.zeros(1, 1, 64, 16, dtype=torch.float16)
    box, layout = Box(window=(4, 4)), TokenLayout(grid=(8, 8))
    for tiling, said in (
        (Tiling(q=(16,), kv=(16,)), "one number per axis"),
        (Tiling(q=(3, 8), kv=(4, 4)), "power of two"),
        (Tiling(q=(8, 16), kv=(4, 4)), "must have 128 and 64 tokens"),
    ):
        with pytest.raises(UserError, match=said):
            neighborhood.neighborhood(q, q, q, box, layout, tiling)
    with pytest.raises(UserError, match="border=cut"):
        neighborhood.neighborhood(q, q, q, Box(window=4, border="cut"), layout, Tiling(q=(8, 16), kv=(4, 4)))
