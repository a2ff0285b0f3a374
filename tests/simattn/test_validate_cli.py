"""simattn validate: tables of a user's own, what changed, and plots."""

import json

import pytest

from .test_cli import run

ROW = {
    "table": "t",
    "gpu": "h100",
    "kernel": "fa3",
    "phase": "prefill",
    "dtype": "bf16",
    "batch": 1,
    "q_heads": 8,
    "kv_heads": 8,
    "head_dim": 128,
}


@pytest.fixture
def table(tmp_path):
    rows = []
    for tokens in (1024, 2048, 4096, 8192):
        shape = {**ROW, "seq_q": tokens, "seq_kv": tokens, "latency_ms": tokens / 20000}
        rows.append({**shape, "id": f"dense {tokens}", "pattern": "causal"})
        rows.append({**shape, "id": f"window {tokens}", "pattern": "sliding_window", "pattern_params": {"window": 256}})
    path = tmp_path / "runs.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in [*rows, {**rows[0], "id": "odd", "kernel": "mystery"}]))
    return path


def answer(*arguments):
    done = run("validate", *arguments, "--json")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_rows_and_groups_are_as_the_design_says(table):
    found = answer("--table", table)
    assert len(found["rows"]) == 9
    assert all((row["error"] is None) == (row["skipped"] is not None) for row in found["rows"])
    assert {"id", "measured_ms", "predicted_ms", "error", "skipped"} <= found["rows"][0].keys()
    assert [row["skipped"] for row in found["rows"]][-1] == "no profile for kernel mystery on sm90"
    group = next(
        g for g in found["groups"] if (g["gpu"], g["kernel"], g["pattern"], g["size"]) == ("h100", "fa3", "causal", "all")
    )
    assert group["n"] == 4
    for estimator in ("simulated", "flop_bound", "tile_bound"):
        assert group[estimator].keys() == {"mape", "median", "p90", "max", "bias"}


def test_what_changed_is_said_row_by_row(table, tmp_path):
    old = answer("--table", table)
    old["rows"][0]["predicted_ms"] *= 2
    path = tmp_path / "old.json"
    path.write_text(json.dumps(old))
    found = answer("--table", table, "--against", path)
    assert [change["id"] for change in found["changes"]] == ["dense 1024"]
    assert found["same"] == 8
    printed = run("validate", "--table", table, "--against", path).stdout
    assert "1 predictions changed" in printed
    assert "8 did not, 0 are gone" in printed


def test_fields_can_be_given_for_all_rows(table):
    found = answer("--table", table, "--set", "gpu=h200", "--set", "kernel=fa3")
    assert {row["gpu"] for row in found["rows"]} == {"h200"}
    assert all(row["skipped"] is None for row in found["rows"])


def test_plots_need_no_network(table, tmp_path):
    pytest.importorskip("plotly")
    page = tmp_path / "plots.html"
    assert run("validate", "--table", table, "--html", page).returncode == 0
    text = page.read_text(encoding="utf-8")
    assert text.count("plotly-graph-div") >= 3
    assert 'src="http' not in text
    assert "Predicted and measured time" in text
