import pytest
from simattn.kernels.band import ENOUGH, PROMISE, band, bands, classes, narrowest, shared_bands


def test_a_band_holds_what_it_promises():
    ratios = [n / 1000 for n in range(500, 1500)]
    found = band(ratios)
    inside = sum(found.low <= ratio <= found.high for ratio in ratios) / len(ratios)
    assert inside == pytest.approx(PROMISE, abs=0.005)
    assert band([1.0, 2.0]).low == 1.0


def test_few_residuals_make_no_band_of_their_own():
    long, short = classes("dense", 128, 8192), classes("dense", 128, 100)
    found = bands([(long, 1.0)] * ENOUGH + [(short, 1.2)] * (ENOUGH - 1))
    assert long[0] in found
    assert short[0] not in found
    assert narrowest(found, short) == found["dense, head dim 128"]
    assert narrowest({}, short) is None


def test_classes_go_from_narrow_to_wide():
    assert classes("dense", 128, 4096)[0] == "dense, head dim 128, 4k tokens and more"
    assert classes("box", 64, 2048) == ("sparse, other head dims, 1k to 4k tokens", "sparse, other head dims", "sparse", "all")


def test_shipped_bands_are_there_for_every_step():
    found = shared_bands()
    assert found.keys() == {"profile", "architecture", "generation"}
    for of_step in found.values():
        assert "all" in of_step
        assert all(0 < b.low <= b.high for b in of_step.values())
