"""Suites: every case has a name of its own, fits the machine, and can be planned."""

import pytest
from simattn.facts import UserError
from simattn.hwspecs import gpus
from simattn.validation.bench import SUITES, cases, plan
from simattn.validation.bench.blind import draw
from simattn.validation.bench.runners import RUNNERS

LISTED = [suite for suite in SUITES if suite != "blind"]


@pytest.mark.parametrize("tiny", [False, True])
@pytest.mark.parametrize("suite", LISTED)
def test_cases_are_distinct_and_complete(suite, tiny):
    found = cases(suite, sm_count=132, tiny=tiny)
    assert len({case.key for case in found}) == len(found) >= 5
    assert all(case.suite == suite and case.runner in RUNNERS for case in found)
    for case in found:
        if case.runner in ("attention", "decode"):
            assert None not in (case.q_heads, case.kv_heads, case.seq_q, case.seq_kv, case.head_dim, case.pattern)
            assert case.q_heads % case.kv_heads == 0


def test_the_grid_that_was_asked_for():
    core = cases("core", sm_count=132)
    assert {case.seq_kv for case in core if case.kernel == "bundled"} >= {1024, 65536}
    assert {case.head_dim for case in core} == {64, 128}
    assert {case.pattern for case in core} == {"dense", "causal"}
    sparse = cases("sparse", sm_count=132)
    assert {case.params.get("density") for case in sparse} >= {0.02, 1.0}
    assert {case.params.get("block") for case in sparse} >= {64, 128}
    masks = [case for case in sparse if case.pattern != "sliding_window"]
    flex, bundled = ({(c.pattern, str(c.params)) for c in masks if c.kernel == kernel} for kernel in ("flex", "bundled"))
    assert flex <= bundled


def test_wave_edges_follow_the_machine():
    for sms in (108, 132):
        heads = {case.q_heads for case in cases("micro", sm_count=sms) if case.what == "wave"}
        assert {sms - 1, sms, sms + 1} <= heads


def test_tiny_is_small():
    for suite in LISTED:
        assert max(case.tflop for case in cases(suite, sm_count=2, tiny=True)) < 1e-3


@pytest.mark.parametrize("suite", SUITES)
def test_each_suite_is_an_errand_of_ten_minutes(suite):
    spec = gpus.load("h200")
    found = draw(0) if suite == "blind" else cases(suite, sm_count=spec.chip.sm_count)
    planned = plan(found, spec)
    assert [item.case for item in planned] == found
    assert all(item.seconds > 0 for item in planned)
    assert sum(item.seconds for item in planned) < 540


def test_plan_uses_predictions():
    spec = gpus.load("h200")
    core = [item for item in plan(cases("core", sm_count=132), spec) if item.case.kernel in ("bundled", "fa2")]
    assert all(item.predicted_ms for item in core)
    long, short = (next(i for i in core if i.case.seq_q == n and i.case.q_heads == 4) for n in (32768, 1024))
    assert long.predicted_ms > 100 * short.predicted_ms


def test_unknown_suite():
    with pytest.raises(UserError, match="did you mean 'core'"):
        cases("cor", sm_count=132)
