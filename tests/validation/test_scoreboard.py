"""The scoreboard and its page, on tables that the simulator itself made."""

import json

import msgspec
import pytest
from simattn.kernels.calibration import all_calibrations
from simattn.validation import Measurement, compare, log_scoring, role, scoreboard, scoreboard_page
from simattn.validation.bars import reached
from simattn.validation.causes import UNKNOWN, cause_of, causes
from simattn.validation.noise import Floor
from simattn.validation.protocol import protocol
from simattn.validation.scoreboard import Board, known_to, with_dense
from simattn.validation.scores import group_scores

from simattn import UserError

H200 = next(subject for subject in protocol().unseen if subject.table.startswith("h200"))


def measurement(name, tokens, window=0, **changes):
    fields = {
        "id": name,
        "table": f"aiconfigurator/{H200.table}",
        "gpu": "h200_sxm",
        "kernel": H200.kernel,
        "phase": "prefill",
        "dtype": "bf16",
        "latency_ms": 1.0,
        "batch": 2,
        "q_heads": 16,
        "kv_heads": 4,
        "seq_q": tokens,
        "seq_kv": tokens,
        "head_dim": 128,
        "pattern": "sliding_window" if window else "causal",
        "pattern_params": {"window": window} if window else {},
    }
    return Measurement(**{**fields, **changes})


@pytest.fixture(scope="module")
def table():
    """Runs as a machine measures them that is a tenth slower than we say."""
    runs = [measurement(f"dense {n}", n) for n in range(512, 9000, 512)]
    runs += [measurement(f"window {n}", n, window=128) for n in (2048, 4096, 8192)]
    return [msgspec.structs.replace(run, latency_ms=1.1 * row.predicted_ms) for run, row in zip(runs, compare(runs), strict=True)]


@pytest.fixture
def board(table, monkeypatch):
    import importlib

    module = importlib.import_module("simattn.validation.scoreboard")
    monkeypatch.setattr(module, "runs_of", lambda subject: table if subject.table == H200.table else [])
    monkeypatch.setattr(module, "_floor", lambda subject, runs: Floor(windows=0.01, windows_n=3))
    return scoreboard("AB")


def test_class_a_knows_nothing_of_the_target(board):
    assert [f"{c.kernel}@{c.gpu}" for c in known_to(H200)] == ["fa3_paged@h100_sxm"]
    a = {row.id: row for row in board.rows if row.part == "A"}
    b = {row.id: row for row in board.rows if row.part == "B"}
    assert a.keys() == b.keys()
    assert all(row.predicted_ms / row.measured_ms == pytest.approx(1 / 1.1) for row in b.values())
    assert any(a[name].predicted_ms != b[name].predicted_ms for name in a)
    assert {row.validity for row in a.values()} == {"extrapolated"}


def test_nothing_that_was_fitted_is_scored(board, table):
    scored = {row.id for row in board.rows}
    assert scored == {run.id for run in table if role(run) == "score"}
    assert len(scored) < len(table)


def test_speedups_are_over_the_dense_call_at_the_shape(board):
    windows = [row for row in board.rows if row.part == "B" and row.window]
    assert len(windows) == 3
    assert all(row.speedup_error == pytest.approx(0, abs=1e-9) for row in windows)
    alone = with_dense([row._replace(dense_ms=None) for row in windows])
    assert all(row.speedup_error is None for row in alone)


def test_bars_are_of_each_table(board):
    found = {(r.bar.rows, r.bar.statistic, r.bar.size): r for r in reached(board.rows) if r.bar.part == "B"}
    assert found["window", "mape", ""].values == {"h200_sxm": pytest.approx(1 - 1 / 1.1)}
    assert found["window", "mape", ""].met == 0
    assert found["window", "speedup", ""].met == 1


def test_the_page_has_a_table_a_class(board):
    page = scoreboard_page(board)
    for text in ("## The bars", "## A: unseen GPU", "## B: same table", "### The ten worst rows", "## Bands", "window, D128"):
        assert text in page
    assert "| h200_sxm/vllm/0.24.0 | fa3_paged@h100_sxm | architecture |" in page
    assert "## C:" not in page


def test_the_log_grows_by_a_line(board, tmp_path):
    path = tmp_path / "scorings.jsonl"
    log_scoring(board, path)
    log_scoring(board, path)
    first, second = (json.loads(line) for line in path.read_text().splitlines())
    assert first == second
    assert {group["class"] for group in first["groups"]} == {"A", "B"}
    assert first.keys() >= {"date", "version", "specs", "profiles", "calibrations"}


def test_a_calibration_that_is_missing_is_named(monkeypatch):
    import importlib

    module = importlib.import_module("simattn.validation.scoreboard")
    monkeypatch.setattr(module, "all_calibrations", lambda: [c for c in all_calibrations() if c.gpu != "h100_sxm"])
    with pytest.raises(UserError, match="no calibration fa3_paged@h100_sxm: simattn calibrate --all"):
        known_to(H200)


def test_skipped_rows_are_counted(row):
    rows = [row(part="C"), row(part="C", id="b", predicted=None, skipped="no profile for kernel mystery")]
    page = scoreboard_page(Board(rows, [("C", g) for g in group_scores(rows)], {}))
    assert "1 of 2 rows were simulated" in page
    assert "| 1 | no profile for kernel mystery |" in page


def test_causes_hold_for_what_they_say(row):
    assert all(cause.why for cause in causes())
    assert cause_of(row(predicted=3.0)) == UNKNOWN
    d256 = row(kernel="vllm/vllm_flashinfer_trtllmprefill", head_dim=256, predicted=1.5)
    assert "head dim 256" in cause_of(d256)
    assert cause_of(d256._replace(predicted_ms=0.5)) == UNKNOWN
