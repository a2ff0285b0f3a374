"""Heads of different families in one call."""

import numpy as np
import pytest
from simattn.facts import UserError
from simattn.workloads.families import Mix
from simattn.workloads.families.mix import Part
from simattn.workloads.layout import Tiling, TokenLayout
from simattn.workloads.schedule import Kind
from simattn.workloads.visits import visits

FLAT = Tiling(q=(128,), kv=(128,))
HUNYUAN = TokenLayout(grid=(30, 48, 80), text=256)


def mix(*heads):
    return Mix(heads=tuple(Part(share=share, family=family, params=params) for share, family, params in heads))


def sta_table(oracle):
    rows = [row for row in oracle("visual_sta")["windows"] if row["share_sparse_steps"]]
    return mix(*((row["share_sparse_steps"], "sliding_tile", {"window": row["window"]}) for row in rows))


def test_mean_density_of_the_shipped_sta_table(oracle):
    """24 heads hold the shares of the table to the nearest head; its mean density is met within 0.1 points."""
    table = sta_table(oracle)
    s = table.schedule_heads(HUNYUAN, FLAT, 24)
    assert table.counts(24) == [10, 8, 3, 2, 1]
    assert s.blocks.active / s.blocks.total == pytest.approx(oracle("visual_sta")["mean_density_sparse_steps"], abs=1e-3)
    assert (s.copies, len(s.groups)) == (24, 5)
    assert table.mask_class() == "blocks"


def test_heads_are_those_of_their_families():
    table = mix((0.5, "band", {"window": 256}), (0.25, "band", {}), (0.25, "band", {"causal": True}))
    layout = TokenLayout(grid=(2048,))
    s = table.schedule_heads(layout, FLAT, 8)
    parts = [f.schedule(layout, FLAT) for f in table.families]
    assert table.counts(8) == [4, 2, 2]
    for name in ("visited", "full", "pairs", "work_rows"):
        assert getattr(s, name) == sum(getattr(p, name) * n for p, n in zip(parts, (4, 2, 2), strict=True))
    masks = s.to_mask()
    assert all((masks[i] == p.to_mask()[0]).all() for i, p in enumerate(parts))
    assert set(visits(s).kind) == {int(Kind.FULL), int(Kind.PARTIAL)}
    assert s.seq_kv == 2048


@pytest.mark.parametrize("heads", [1, 2, 3, 7, 24, 40])
def test_heads_are_handed_out_by_largest_remainder(heads):
    shares = np.array([0.4, 0.3, 0.2, 0.1])
    table = mix(*((float(s), "band", {}) for s in shares))
    counts = np.array(table.counts(heads))
    assert counts.sum() == heads
    assert (np.abs(counts - shares * heads) < 1).all()


def test_heads_may_be_skipped():
    table = mix((0.5, "band", {}), (0.25, "band", {"causal": True}))
    assert table.schedule_heads(TokenLayout(grid=(512,)), FLAT, 8).copies == 6
    assert table.schedule(TokenLayout(grid=(512,)), FLAT).copies == 1


def test_class_of_kernels_that_can_run_it():
    assert mix((1, "band", {})).mask_class() == "dense"
    assert mix((0.5, "band", {}), (0.5, "band", {"window": 64})).mask_class() == "blocks"
    assert mix((0.5, "band", {}), (0.5, "memory_band", {"keep": 0.5})).mask_class() == "element"


@pytest.mark.parametrize(
    ("heads", "message"),
    [
        ([(0.7, "band", {}), (0.7, "band", {})], "must add up to at most 1"),
        ([], "must add up to at most 1, and there must be one"),
        ([(0.7, "bend", {})], "unknown family 'bend'; did you mean 'band'"),
        ([(0.7, "mix", {"heads": []})], "got another mix"),
        ([(0.7, "band", {"windw": 3})], "unknown parameter 'windw'"),
        ([(0.1, "band", {})], "leaves no head to compute of 4"),
    ],
)
def test_what_does_not_fit_is_refused(heads, message):
    with pytest.raises(UserError, match=message):
        mix(*heads).schedule_heads(TokenLayout(grid=(512,)), FLAT, 4)
