import json

import pytest
from simattn.hwspecs import labels
from simattn.validation import Measurement, accuracy_page, compare, group_scores, published_runs, read_measurements
from simattn.validation.compare import score

from simattn import UserError

SHAPES = {"batch": 1, "q_heads": 16, "kv_heads": 16, "seq_q": 4096, "seq_kv": 4096, "head_dim": 128}
RUN = {"id": "x", "table": "t", "gpu": "h100-sxm", "kernel": "fa3", "phase": "prefill", "dtype": "bf16", "source": "s", **SHAPES}
RUN |= {"latency_ms": 1.0, "pattern": "dense"}


def rows(**changes):
    return compare([Measurement(**{**RUN, **changes})])


def test_published_runs_are_complete():
    runs = published_runs()
    assert len(runs) == 1572
    assert len({run.id for run in runs}) == len(runs)
    assert all(run.source for run in runs)
    assert {run.gpu for run in runs} <= labels().keys()


def test_every_published_run_is_simulated_or_says_why_not():
    compared = compare(published_runs())
    assert len(compared) == 1572
    assert all((row.error is None) == (row.skipped is not None) for row in compared)
    done = [row for row in compared if row.error is not None]
    assert sum(row.pattern in ("dense", "causal") for row in done) >= 200
    natten = {row.id for row in compared if row.id.startswith("natten-docs-") and row.pattern in ("gna", "na")}
    fitted = {row.id for row in compared if row.skipped == "constants were fitted to this run"}
    backward = {row.id for row in compared if row.id in natten and row.skipped and "bwd" in row.id}
    assert natten == {row.id for row in done if row.id in natten} | fitted | backward
    assert fitted == {"natten-docs-2d-flux/gna-s16x16-h100", "natten-docs-2d-flux/gna-s16x16-b200"}
    assert all(row.flop_bound_ms <= row.tile_bound_ms <= row.predicted_ms for row in done)


@pytest.mark.parametrize(
    ("changes", "why"),
    [
        ({"kernel": "mystery"}, "no profile for kernel mystery"),
        ({"gpu": "mystery"}, "unknown GPU"),
        ({"pattern": "mystery"}, "pattern mystery is not simulated yet"),
        ({"phase": "ceiling"}, "phase ceiling is not simulated yet"),
        ({"q_heads": None}, "does not give q_heads"),
        ({"latency_ms": None}, "no measured time above zero"),
        ({"suspect": True}, "suspect"),
        ({"dtype": "mxfp8"}, "expected one of"),
    ],
)
def test_skipped_runs_say_why(changes, why):
    (row,) = rows(**changes)
    assert row.error is None
    assert why in row.skipped


def test_error_is_relative_and_signed():
    (row,) = rows()
    (double,) = rows(latency_ms=2.0)
    assert row.error == pytest.approx(row.predicted_ms - 1)
    assert double.error == pytest.approx(row.predicted_ms / 2 - 1)


def test_scores():
    s = score([0.1, -0.3, 0.2, 0.0])
    assert (s.mape, s.median, s.max, s.bias) == pytest.approx((0.15, 0.15, 0.3, 0.0))
    everything, group = group_scores(rows())
    assert (everything.gpu, everything.n) == ("all", 1)
    assert (group.gpu, group.kernel, group.pattern) == ("h100-sxm", "fa3", "dense")
    assert group_scores([]) == []


def test_page_names_the_worst_and_the_skipped():
    page = accuracy_page([*rows(), *rows(kernel="mystery")])
    assert "1 of 2 runs were simulated" in page
    assert "no profile for kernel mystery" in page


def test_files_with_mistakes_are_refused_with_the_line(tmp_path):
    path = tmp_path / "runs.jsonl"
    path.write_text(json.dumps(RUN) + "\n\n" + json.dumps({**RUN, "q_heads": "many"}) + "\n")
    with pytest.raises(UserError, match=r"line 3: Expected `int \| null`, got `str`"):
        read_measurements(path)
    path.write_text(json.dumps({**RUN, "anything": "else"}))
    assert read_measurements(path)[0].q_heads == 16
