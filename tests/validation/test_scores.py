import pytest
from simattn.validation.scores import ALL, Group, group_scores, interval, kind_of, ranking, score


def test_scores():
    s = score([0.1, -0.3, 0.2, 0.0])
    assert (s.mape, s.median, s.max, s.bias) == pytest.approx((0.15, 0.15, 0.3, 0.0))


def test_an_interval_holds_the_mean_and_is_the_same_each_time():
    errors = [0.01 * n for n in range(1, 41)]
    found = interval(errors)
    assert found == interval(errors)
    assert found.low < 0.205 < found.high
    assert found.low > 0.12
    assert found.high < 0.29
    assert interval(errors[:4]) is None


def test_ranking_counts_pairs_of_a_problem_only(row):
    right = [row(measured=2.0, predicted=1.8, problem="p"), row(measured=1.0, predicted=1.2, problem="p")]
    wrong = [row(measured=2.0, predicted=1.0, problem="q"), row(measured=1.0, predicted=1.2, problem="q")]
    assert ranking(right) == 1
    assert ranking(wrong) == -1
    assert ranking(right + wrong) == 0
    assert ranking([right[0], wrong[0]]) is None
    assert ranking([wrong[0]._replace(dense_ms=(4.0, 3.0))]) == 1


def test_groups_are_gpu_kernel_pattern_and_size(row):
    rows = [row(tokens=512), row(tokens=8192), row(gpu="b200"), row(skipped="no", predicted=None)]
    found = {g.group: g for g in group_scores(rows)}
    assert found[Group(ALL, ALL, ALL)].n == 3
    assert next(iter(found)) == Group(ALL, ALL, ALL)
    assert found[Group("h100_sxm", "fa3", "causal")].n == 2
    assert found[Group("h100_sxm", "fa3", "causal", "under 1k tokens")].n == 1
    assert group_scores([]) == []


def test_a_backward_run_is_a_group_of_its_own(row):
    assert kind_of(row(phase="train-bwd")) != kind_of(row())


def test_the_band_counts_rows_that_did_not_make_it(row):
    from simattn.validation.protocol import makes_bands

    names = [f"row {n}" for n in range(40)]
    ours = [row(id=name, measured=1.0 if makes_bands(name) else 2.0) for name in names]
    (g, *_) = group_scores(ours)
    assert g.inside == 0
    assert g.inside_n == sum(not makes_bands(name) for name in names)


def test_the_roofline_is_of_dense_rows_of_the_same_table(row):
    pytest.importorskip("scipy")
    rows = [row(id=str(n), flops=n * 1e9, bytes=1e5 * n, measured=0.01 + n * 0.1) for n in range(1, 9)]
    everything = group_scores(rows)[0]
    assert everything.roofline.mape < 0.01
    assert group_scores([*rows, row(table="another")])[0].roofline is None
    assert everything.plain()["roofline"]["mape"] < 0.01
    assert everything.plain()["gpu"] == "all"
