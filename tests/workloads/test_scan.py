"""Tiles that are looked at only to be passed over."""

import numpy as np
import pytest
from simattn.workloads import schedule
from simattn.workloads.scan import scanned


@pytest.mark.parametrize(("window", "sinks"), [(64, 64), (100, 10), (500, 130)])
def test_between_its_visits_every_tile_is_looked_at(window, sinks):
    plain = schedule("streaming_llm", seq_q=1500, window=window, sinks=sinks, q_tile=64, kv_tile=64)
    found = scanned(plain)
    mask = plain.to_mask()[0]
    last = mask.shape[1] - 1 - np.argmax(mask[:, ::-1], axis=1)
    assert found.counts.skipped.tolist() == (last + 1 - mask.sum(axis=1)).tolist()
    for count in ("visited", "full", "partial", "pairs", "max_visited"):
        assert getattr(found, count) == getattr(plain, count)


def test_nothing_to_pass_over():
    for pattern in ("dense", "causal"):
        plain = schedule(pattern, seq_q=1024)
        assert scanned(plain).counts.skipped.sum() == 0
