import msgspec
import pytest
from simattn.hwspecs import gpus
from simattn.kernels.band import Band, shared_bands
from simattn.kernels.calibration import all_calibrations
from simattn.simulator import predict, question
from simattn.simulator.band import band_of
from simattn.simulator.choice import choose_kernel

CALL = {"batch": 1, "q_heads": 32, "kv_heads": 8, "head_dim": 128, "seq_q": 4096, "seq_kv": 4096, "text": 0}


def banded(gpu="h100", kernel="fa3_paged", pattern="causal", known=None, **changes):
    asked = question(pattern, **{**CALL, **changes})
    choice = choose_kernel(gpus.load(gpu), asked.problem, asked.pattern.family.mask_class(), kernel=kernel, known=known)
    return band_of(choice, asked)


def test_a_calibrated_kernel_in_its_domain():
    own = next(c for c in all_calibrations() if (c.kernel, c.gpu) == ("fa3_paged", "h100_sxm"))
    found = banded()
    assert found.validity == "in_domain"
    expected = own.bands["dense, head dim 128, 4k tokens and more"]
    assert (found.low, found.high) == (min(expected.low, 1), max(expected.high, 1))
    assert "held-out calls of this class" in found.why


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"seq_q": 131072, "seq_kv": 131072}, "131,072 tokens, where"),
        ({"head_dim": 96}, "head dim 96"),
        ({"dtype": "fp16"}, "fp16"),
    ],
)
def test_outside_the_domain_it_widens_and_says_why(changes, why):
    inside, outside = banded(), banded(**changes)
    assert outside.validity == "extrapolated"
    assert why in outside.why
    assert outside.low <= inside.low
    assert outside.high >= inside.high


def test_a_borrowed_kernel_has_the_band_of_its_step():
    others = [c for c in all_calibrations() if c.gpu != "h200_sxm"]
    found = banded("h200", known=others)
    assert found.why == "the kernel was calibrated on h100_sxm, not on h200_sxm"
    near = shared_bands()["architecture"]["dense, head dim 128, 4k tokens and more"]
    assert (found.low, found.high) == (min(near.low, 1), max(near.high, 1))
    far = banded("rtx_pro_6000", "fa2_split", known=[c for c in all_calibrations() if c.gpu == "a100_sxm_80gb"])
    assert "a100_sxm_80gb" in far.why


def test_no_calibration_at_all():
    found = banded(kernel="flex", known=())
    assert found.validity == "extrapolated"
    assert found.why == "kernel flex was not calibrated on h100_sxm"


def test_a_calibration_without_bands_has_that_of_profiles():
    own = msgspec.structs.replace(next(c for c in all_calibrations() if c.kernel == "fa3_paged"), bands={})
    assert banded(known=[own]).validity == "extrapolated"


def test_bands_hold_one():
    assert Band(n=1, low=0.5, high=0.9).high < 1
    p = predict("causal", "h100", seq_q=2048, kernel="fa3_paged")
    assert p.latency_ms_low <= p.latency_ms <= p.latency_ms_high
    assert p.provenance.why


def test_a_calibration_of_one_run_is_no_contradiction():
    p = predict("gna", "b200")
    assert p.provenance.calibrated_on == "natten-docs-2d-flux"
    assert p.provenance.why == (
        "natten_blackwell was fitted to natten-docs-2d-flux on b200_sxm, too few runs for a band of its own"
    )
