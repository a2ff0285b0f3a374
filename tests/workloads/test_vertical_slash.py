import numpy as np
import pytest
from simattn.facts import UserError
from simattn.workloads import Kind, Tiling, TokenLayout
from simattn.workloads.families import VerticalSlash
from simattn.workloads.families.vertical_slash import Lines, run_schedule

TILES = Tiling(q=(64,), kv=(64,))


@pytest.mark.parametrize("source", ["llm_oracles", "llm_official"])
def test_conversion_of_minference(oracle, source):
    """Run for run, against its CUDA code compiled for a CPU."""
    case = oracle(source)["minference_vertical_slash"]
    vertical = np.array(case["params"]["vertical"])
    s = run_schedule(Lines(vertical, np.array(case["params"]["slash_offsets"])), 512, TILES)
    slashes = s.counts.visited - s.counts.gather
    for row, (starts, columns) in enumerate(zip(case["block_starts"], case["columns"], strict=True)):
        own = slice(*s.runs.indptr[row : row + 2])
        begin, stop, kind = s.runs.start[own], s.runs.stop[own], s.runs.kind[own]
        keys = np.concatenate([np.arange(b, e) for b, e, k in zip(begin, stop, kind, strict=True) if k != Kind.GATHER])
        assert keys.tolist() == sorted(k for start in starts for k in range(start, min(start + 64, 512)))
        assert slashes[row] == len(starts)
        assert (stop - begin)[kind == Kind.GATHER].sum() == len(columns)
        assert columns == [v for v in vertical.tolist() if v not in keys and v < keys.max()]


def test_lines_as_estimated(oracle):
    case = oracle("llm_oracles")["minference_vs_estimated"]
    s = run_schedule(Lines(np.array(case["vertical"]), np.array(case["slash"])), 512, TILES)
    assert (s.counts.visited - s.counts.gather).tolist() == case["block_counts"]
    gathered = np.bincount(s.runs.row, weights=s.runs.length * (s.runs.kind == Kind.GATHER), minlength=8)
    assert gathered.tolist() == case["column_counts"]


def test_density_lies_between_one_band_and_lines_anywhere(oracle):
    """The bounds at 32K: the band exactly; lines anywhere within what another seed may differ by."""
    for case in oracle("llm_oracles")["minference_vs_density_bounds_32k"]:
        layout = TokenLayout(grid=(case["N"],))
        budget = {"verticals": case["nV"], "slashes": case["nS"]}
        band, anywhere, half = (
            VerticalSlash(**budget, **where).schedule(layout, TILES) for where in ({"band": 1.0}, {"band": 0.0, "cluster": 1}, {})
        )
        assert (band.counts.visited - band.counts.gather).sum() == case["slash_tiles_if_contiguous_band"]
        assert anywhere.visited / (512 * 513 / 2) == pytest.approx(case["density_random"], abs=0.03)
        assert half.visited < anywhere.visited or case["nS"] == 100


def test_dilated_slashes_save_no_tile():
    """MInference's dilated1: every second of the newest 8192 diagonals."""
    layout = TokenLayout(grid=(32768,))
    dilated = VerticalSlash(verticals=1024, slashes=4096, first=1024, dilation=2).schedule(layout, TILES)
    band = VerticalSlash(verticals=1024, slashes=8192, first=1024, band=1.0).schedule(layout, TILES)
    assert dilated.visited == band.visited


def test_budgets_go_to_their_share_of_the_heads():
    kinds = ((0.5, 30, 800), (0.25, 1000, 4096), (0.25, 3500, 100))
    s = VerticalSlash(kinds=kinds).schedule_heads(TokenLayout(grid=(8192,)), TILES, 8)
    assert [g.copies for g in s.groups] == [1] * 8
    sizes = s.counts.visited.reshape(8, -1).sum(1)
    assert sizes[:4].max() < sizes[6:].min() < sizes[4:6].min()


def test_blocks_are_computed_whole_where_lines_are_aligned():
    family = VerticalSlash(verticals=64, slashes=256, band=1.0, aligned=128)
    s = family.schedule(TokenLayout(grid=(4096,)), Tiling(q=(128,), kv=(128,)))
    assert family.mask_class() == "blocks"
    assert s.aligned
    assert s.to_mask()[0][np.arange(1, 32), np.arange(31)].all()


def test_pairs_are_those_of_the_computed_tiles():
    lines = Lines(np.array([0, 5, 77]), np.array([0, 10, 150]))
    s = run_schedule(lines, 500, TILES)
    seen = np.zeros((500, 500), bool)
    gathered = 0
    for row, start, length, kind in zip(s.runs.row, s.runs.start, s.runs.length, s.runs.kind, strict=True):
        if kind == Kind.GATHER:
            gathered += length * s.row_live[row]
        else:
            seen[row * 64 : (row + 1) * 64, start : start + length] = True
    assert s.pairs == (seen & np.tri(500, dtype=bool)).sum() + gathered


def test_masks_of_a_file(tmp_path):
    rng = np.random.default_rng(0)
    q, k = rng.standard_normal((4, 512, 16)), rng.standard_normal((2, 512, 16))
    np.savez(tmp_path / "layer.npz", q=q, k=k)
    family = VerticalSlash(verticals=40, slashes=120, qk=str(tmp_path / "layer.npz"))
    s = family.schedule_heads(TokenLayout(grid=(512,)), TILES, 8)
    assert [g.copies for g in s.groups] == [2] * 4
    with pytest.raises(UserError, match="hold 4 heads of 512 x 512 tokens, the call has 8 of 1024"):
        family.schedule_heads(TokenLayout(grid=(1024,)), TILES, 8)


@pytest.mark.parametrize(("params", "message"), [
    ({}, "either verticals and slashes, or kinds"),
    ({"verticals": 8}, "at least one slash"),
    ({"slashes": 8, "kinds": ((1.0, 8, 8),)}, "either verticals and slashes, or kinds"),
])  # fmt: skip
def test_what_makes_no_sense_is_refused(params, message):
    with pytest.raises(UserError, match=message):
        VerticalSlash(**params)
