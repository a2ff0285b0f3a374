import numpy as np
import pytest
from simattn.workloads import Kind, from_bsr, schedule, visits

CASES = [
    ("causal", {"seq_q": 1000, "q_tile": 128, "kv_tile": 128}),
    ("sliding_window", {"seq_q": 777, "window": 100, "q_tile": 64, "kv_tile": 48}),
    ("radial", {"grid": (8, 16, 16), "text": 64, "q_tile": 128, "kv_tile": 128}),
    ("gna", {"grid": (32, 32), "window": (9, 9), "q_tile": (8, 8), "kv_tile": (8, 8)}),
    ("documents", {"seq_q": 1024, "lengths": (300, 200, 524)}),
    ("ragged", {"seq_q": 1024, "lengths": (512, 256, 256)}),
]


@pytest.mark.parametrize(("pattern", "options"), CASES)
def test_visits_are_what_is_counted(pattern, options):
    made = schedule(pattern, **options)
    found = visits(made)
    row = np.repeat(np.arange(len(found.row_first) - 1), np.diff(found.row_first))
    full = np.bincount(row, weights=found.kind == Kind.FULL, minlength=len(made.row_live))
    assert (np.diff(found.row_first) == made.counts.visited).all()
    assert (full == made.counts.full).all()


@pytest.mark.parametrize(("pattern", "options"), CASES[:4])
def test_visits_are_the_blocks_of_the_mask(pattern, options):
    made = schedule(pattern, **options)
    indptr, indices = made.to_bsr()
    found = visits(made)
    assert (found.row_first == indptr).all()
    assert (found.tile == indices).all()


def test_dynamic_tiles_start_at_the_first_key():
    made = schedule("gna", grid=(1024,), window=(100,), q_tile=(64,), kv_tile=(64,), dynamic_kv=True)
    found = visits(made)
    assert (np.diff(found.row_first) == made.counts.visited).all()


def test_kinds_of_ones_own():
    kinds = [Kind.FULL, Kind.QK_ONLY, Kind.SKIPPED]
    made = from_bsr([0, 3], [0, 2, 3], q_tile=128, kv_tile=128, seq_q=128, seq_kv=512, kinds=kinds)
    found = visits(made)
    assert found.tile.tolist() == [0, 2, 3]
    assert found.kind.tolist() == [int(k) for k in kinds]


def test_rows_without_keys_have_no_visits():
    made = from_bsr([0, 0, 1], [1], q_tile=128, kv_tile=128, seq_q=256, seq_kv=256)
    assert visits(made).row_first.tolist() == [0, 0, 1]
