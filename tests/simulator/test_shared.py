"""What predictions of one process share changes none of them."""

import pytest
from simattn.kernels import calibration, profile
from simattn.simulator import baseline, machine, pipeline, predict

CALLS = [
    (pattern, hw, {"seq_q": seq, "q_heads": heads, "kv_heads": 8, "batch": batch})
    for pattern in ("causal", "sliding_window")
    for hw in ("h100", "b200")
    for seq in (1024, 6000)
    for heads, batch in ((8, 1), (16, 1), (8, 2))
]


def forget():
    for cached in (baseline._fastest_dense, calibration._constants, profile._able, pipeline._sm_pipeline, pipeline._steady):
        cached.cache_clear()
    machine.outcomes.clear()


def test_no_answer_depends_on_those_before_it():
    together = [predict(pattern, hw, **options) for pattern, hw, options in CALLS]
    assert baseline._fastest_dense.cache_info().hits > 0
    for (pattern, hw, options), expected in list(zip(CALLS, together, strict=True))[::-1]:
        forget()
        assert predict(pattern, hw, **options) == expected


@pytest.mark.parametrize("change", [{"clock": "boost"}, {"without": ["schedule"]}, {"fidelity": "bound"}, {"baseline": "triton"}])
def test_the_dense_call_is_that_of_its_setting(change):
    plain = predict("sliding_window", "h100", seq_q=4096)
    changed = predict("sliding_window", "h100", seq_q=4096, **change)
    forget()
    assert predict("sliding_window", "h100", seq_q=4096, **change) == changed
    assert changed.dense != plain.dense
