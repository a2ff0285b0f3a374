import json

import pytest
from simattn.hwspecs import labels
from simattn.simulator import Repeats
from simattn.validation import Measurement, compare, published_runs, read_measurements
from simattn.validation.sources import kernel_for, timed_as
from simattn.validation.sources.published import _labels

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


def test_runs_of_one_paper_share_its_clock():
    """Appendix C.1 of arXiv 2407.08608: the clock of the GPU was fixed at 1830 MHz."""
    assert {run.gpu for run in published_runs() if "2407.08608" in run.source} == {"h100-sxm-1830mhz"}


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


def test_a_row_says_what_it_is():
    (row,) = rows(pattern="sliding_window", pattern_params={"window": 256})
    assert (row.head_dim, row.tokens, row.window, row.table, row.phase) == (128, 4096, 256, "t", "prefill")
    assert row.low_ms < row.predicted_ms < row.high_ms
    assert row.flops > 0
    assert row.bytes == 2 * 128 * 2 * 16 * 2 * 4096
    (decode,) = rows(pattern="sliding_window", pattern_params={"window": 256}, phase="decode", seq_q=1)
    assert decode.bytes == 2 * 128 * 2 * 16 * (1 + 256)
    assert row.plain()["error"] == row.error


def test_rows_that_differ_in_pattern_share_a_problem():
    (causal,), (window,) = rows(pattern="causal"), rows(pattern="sliding_window", pattern_params={"window": 256})
    (other,) = rows(seq_q=2048, seq_kv=2048)
    assert causal.problem == window.problem != other.problem


def test_only_what_is_known_is_used():
    (without,), (all_known,) = compare([Measurement(**RUN)], known=()), rows()
    assert without.predicted_ms != all_known.predicted_ms
    assert without.validity == "extrapolated"


def test_files_with_mistakes_are_refused_with_the_line(tmp_path):
    path = tmp_path / "runs.jsonl"
    path.write_text(json.dumps(RUN) + "\n\n" + json.dumps({**RUN, "q_heads": "many"}) + "\n")
    with pytest.raises(UserError, match=r"line 3: Expected `int \| null`, got `str`"):
        read_measurements(path)
    path.write_text(json.dumps({**RUN, "anything": "else"}))
    assert read_measurements(path)[0].q_heads == 16


def test_tables_say_what_their_times_contain():
    served, alone, natten = (timed_as(t) for t in ("aiconfigurator/h100_sxm/vllm/0.24.0", "cudnn-dsv3-gb200", "natten-docs-1d"))
    assert (served.stage, served.launched, served.setting.writes_cache) == ("side", True, True)
    # Kernels of a backward call belong to it, launches do not.
    assert (alone.stage, alone.launched) == ("side", False)
    assert (natten.stage, natten.launched) == ("clock", False)


def test_results_that_the_caller_sets_to_zero_are_in_the_time():
    cleared, bare = (timed_as("magi-h100", label).setting.clears_output for label in ("cudnn", "torch-sdpa"))
    assert (cleared, bare) == (True, False)
    run = {**RUN, "table": "magi-h100"}
    # The same kernel, called by PyTorch.
    with_fill, without = (compare([Measurement(**{**run, "kernel": label})])[0].predicted_ms for label in ("cudnn", "torch-sdpa"))
    written = run["batch"] * run["seq_q"] * run["q_heads"] * run["head_dim"] * 2
    assert with_fill - without > written / 3.35e9


def test_every_published_table_says_how_its_calls_are_made():
    named = {start for own in _labels()["repeats"] for start in own["tables"]}
    tables = {run.table for run in published_runs() if run.latency_ms and run.phase != "ceiling"} - {"flashmla-h800"}
    assert all(table.startswith(tuple(named)) for table in tables)
    assert all(own["source"] for own in _labels()["repeats"])
    # A call between rests, and one of a hundred.
    alone, hundred = (timed_as(table).setting.repeats for table in ("cudnn-dsv3-gb200", "sage-h100"))
    assert alone.span(0.01)[1] < 0.02 < hundred.span(0.01)[1]
    assert timed_as("somebody's").setting.repeats == timed_as("aiconfigurator/x/vllm/1").setting.repeats == Repeats()


def test_a_label_may_stand_for_another_version_in_a_table():
    assert kernel_for("cudnn", "sm100") == "cudnn_blackwell"
    assert kernel_for("cudnn", "sm100", "natten-docs-1d") == "cudnn_blackwell_early"
    assert kernel_for("cudnn", "sm90", "natten-docs-1d") == "cudnn_hopper"
    assert kernel_for("triton", "sm90", "tilelang-attn-sink-h800") == "triton_sink"
