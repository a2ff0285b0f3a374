"""Schedules of heads that differ as one."""

from simattn.workloads import schedule
from simattn.workloads.stack import stack


def test_one_kind_of_head_is_itself():
    causal = schedule("causal", seq_q=1000)
    assert stack([(causal, 3)]).visited == causal.with_copies(3).visited


def test_groups_of_parts_stay_groups():
    ragged, dense = schedule("ragged", seq_q=768, lengths=[256, 512]), schedule("dense", seq_q=768)
    both = stack([(ragged, 2), (dense, 1)])
    assert [(g.first_row, g.rows, g.copies) for g in both.groups] == [(0, 2, 2), (2, 4, 2), (6, 6, 1)]
    assert both.pairs == 2 * ragged.pairs + dense.pairs


def test_blocks_are_those_of_the_mean_head():
    sparse, full = (schedule("radial", frames=8, tokens_per_frame=512, text=128, decay=d) for d in (0.2, 1000))
    assert stack([(sparse, 1), (full, 3)]).blocks.active == round((sparse.blocks.active + 3 * full.blocks.active) / 4)
    assert stack([(sparse, 1), (schedule("dense", seq_q=4224), 3)]).blocks is None
