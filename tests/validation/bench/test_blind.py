"""The blind test: predictions exist before measurements do, and are never made again."""

import msgspec
import pytest
from simattn.facts import UserError
from simattn.hwspecs import gpus
from simattn.validation.bench.blind import compared, draw, predictions_path, write_predictions


def test_draws_are_varied_and_small_enough():
    drawn = draw(5)
    assert len({case.key for case in drawn}) == len(drawn) == 48
    assert len({case.pattern for case in drawn}) >= 5
    assert len({case.seq_q for case in drawn}) > 30
    assert all(case.tflop <= 40 for case in drawn)


def test_predictions_come_first(tmp_path):
    out, spec = tmp_path / "blind.jsonl", gpus.load("h200")
    cases = draw(5)[:6]
    rows = write_predictions(cases, spec, "table", out)
    assert [row["id"] for row in rows] == [f"table/{case.key}" for case in cases]
    assert all(row["predicted_ms"] for row in rows)
    assert all(row["spec_hash"] == spec.spec_hash() for row in rows)
    written = predictions_path(out).read_bytes()
    assert [msgspec.json.decode(line) for line in written.splitlines()] == rows
    # A model that has changed since does not change what was predicted.
    faster = msgspec.structs.replace(spec, chip=msgspec.structs.replace(spec.chip, sm_count=264))
    assert write_predictions(cases, faster, "table", out) == rows
    assert predictions_path(out).read_bytes() == written
    with pytest.raises(UserError, match="other cases"):
        write_predictions(draw(6)[:6], spec, "table", out)


def test_no_predictions_after_the_fact(tmp_path):
    out = tmp_path / "blind.jsonl"
    out.write_text("{}\n")
    with pytest.raises(UserError, match="without predictions"):
        write_predictions(draw(5)[:1], gpus.load("h200"), "table", out)


def test_comparison():
    predictions = [{"id": "a", "predicted_ms": 1.1}, {"id": "b", "predicted_ms": 0.8}, {"id": "c", "predicted_ms": None}]
    rows, total = compared(predictions, [{"id": name, "latency_ms": 1.0} for name in "abc"])
    assert [row["error"] for row in rows] == [pytest.approx(0.1), pytest.approx(-0.2), None]
    assert total.mape == pytest.approx(0.15)
    assert compared(predictions, [])[1] is None
