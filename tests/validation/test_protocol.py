import pytest
from simattn.kernels.calibration import all_calibrations
from simattn.validation import Measurement, published_runs
from simattn.validation.protocol import (
    MASK_FREE_TABLE,
    fit_rows,
    is_fitted,
    makes_bands,
    protocol,
    role,
    score_rows,
)
from simattn.validation.sources.aiconfigurator import Table

SHAPE = {
    "table": "t",
    "gpu": "h100_sxm",
    "kernel": "fa3",
    "phase": "prefill",
    "dtype": "bf16",
    "pattern": "causal",
    "head_dim": 128,
}


def run(id, **changes):
    return Measurement(**{**SHAPE, "id": id, **changes})


def roles(n=1000, **changes):
    return [role(run(f"row {i}", **changes)) for i in range(n)]


def test_half_of_the_dense_rows_is_fitted():
    assert 450 < roles().count("fit") < 550


@pytest.mark.parametrize(
    "changes",
    [
        {"pattern": "sliding_window"},
        {"pattern": "dense"},
        {"pattern": None},
        {"head_dim": 64},
        {"suspect": True},
        {"phase": "decode"},
        {"dtype": "fp8"},
        {"table": "simattn-h100_sxm", "pattern": "gna"},
        {"table": "simattn-h100_sxm", "pattern": "dense", "head_dim": 64},
    ],
)
def test_everything_else_is_scored(changes):
    assert set(roles(50, **changes)) == {"score"}


@pytest.mark.parametrize(
    "changes",
    [
        {"table": "simattn-h100_sxm", "pattern": "dense"},
        {"table": "simattn-h100_sxm", "suite": "micro", "pattern": "block_random", "head_dim": 64},
    ],
)
def test_half_of_our_own_dense_and_micro_runs_is_fitted(changes):
    assert 10 < roles(50, **changes).count("fit") < 40


def test_the_half_is_one_of_the_id_alone():
    # Written down: a change of the hash would let rows that were fitted be scored.
    assert roles(8) == ["score", "fit", "score", "score", "score", "score", "score", "fit"]
    assert roles(50) == roles(50, latency_ms=3.0, table="u", gpu="l40s", kernel="fa2", batch=7)


def test_of_published_runs_only_mask_free_ones_of_natten_are_fitted():
    fitted = [run for run in published_runs() if is_fitted(run)]
    assert {run.table for run in fitted} == {MASK_FREE_TABLE}
    assert {run.pattern for run in fitted} == {"gna"}
    assert len(fitted) == 2


def test_choices_are_fixed_and_apart():
    long = {"latency_ms": 1.0, "seq_q": 4096, "seq_kv": 4096}
    runs = [run(f"row {n}", **long) for n in range(100)]
    windows = [
        run(f"window {n}", **long, pattern="sliding_window", pattern_params={"window": size})
        for n in range(20)
        for size in (128, 8192)
    ]
    fitted, scored = fit_rows(runs + windows, 10), score_rows(windows + runs, 10)
    assert fitted == fit_rows(reversed(runs), 10)
    assert len(fitted) == 10
    # A window of 8192 keys among 4096 is none.
    assert [r.pattern for r in scored] == ["causal"] * 10 + ["sliding_window"] * 10
    assert not {r.id for r in fitted} & {r.id for r in scored}
    assert fit_rows([run(f"row {n}", **{**long, "seq_q": 1}) for n in range(9)]) == []
    assert score_rows([run(f"row {n}", **{**long, "latency_ms": 0.02}) for n in range(9)]) == []


def test_bands_are_made_by_half_of_every_kind():
    names = [f"row {n}" for n in range(1000)]
    both = [role(run(name)) == "score" and makes_bands(name) for name in names]
    assert 180 < sum(both) < 320


def test_what_the_protocol_names_exists():
    known = {f"{c.kernel}@{c.gpu}" for c in all_calibrations()}
    for subject in protocol().unseen:
        assert set(subject.knows) <= known
        gpu = Table.of(subject.table).gpu
        # Class A knows nothing of the GPU itself.
        assert not any(name.split("@")[1].startswith(gpu.removesuffix("_server")) for name in subject.knows)
    calibrated = {subject.table for subject in protocol().calibrated}
    assert {subject.table for subject in protocol().unseen} == calibrated
