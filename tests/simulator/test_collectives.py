"""Messages between GPUs, against closed forms and what NCCL is known to reach."""

from __future__ import annotations

import pytest
from simattn.facts import UserError
from simattn.hwspecs import gpus
from simattn.simulator.collectives import peers


def test_a_large_all_reduce_reaches_the_measured_rate() -> None:
    """A ring moves 2 (n - 1) / n of the bytes through each link: 368 GB/s of NVLink 4 (stas00, 8 H100)."""
    bytes_ = 4 * 2**30
    seconds = peers(gpus.load("h100")).all_reduce_seconds(bytes_, 8)
    assert 2 * 7 / 8 * bytes_ / seconds / 1e9 == pytest.approx(368, rel=0.02)


def test_a_small_all_reduce_is_all_latency() -> None:
    link = peers(gpus.load("h100"))
    assert link.all_reduce_seconds(1024, 8) == pytest.approx((6.6 + 14 * 0.6) * 1e-6, rel=0.01)
    assert link.all_reduce_seconds(1024, 2) == pytest.approx((6.6 + 2 * 0.6) * 1e-6, rel=0.01)
    assert link.all_reduce_seconds(1024, 1) == 0


def test_time_never_falls_with_bytes_and_pcie_is_slower() -> None:
    for count in (2, 8):
        nvlink, pcie = ([peers(gpus.load(gpu)).all_reduce_seconds(2**n, count) for n in range(8, 32)] for gpu in ("a100", "l40s"))
        assert nvlink == sorted(nvlink)
        assert all(fast < slow for fast, slow in zip(nvlink, pcie, strict=True))


def test_no_link_at_all() -> None:
    with pytest.raises(UserError, match="fusemax has no link to another GPU"):
        peers(gpus.load("fusemax"))
