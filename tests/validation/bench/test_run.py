"""Runs are resumable, keep to their time, and lose nothing; cases and machine are made up."""

import msgspec
import pytest
from simattn.facts import UserError
from simattn.hwspecs import gpus
from simattn.validation import read_measurements
from simattn.validation.bench import Case, Planned, Store
from simattn.validation.bench import run as run_module
from simattn.validation.bench.check import Checked, WrongError
from simattn.validation.bench.machine import Machine
from simattn.validation.bench.run import run
from simattn.validation.bench.timer import HostTimer
from simattn.validation.bench.work import UnavailableError, Work, copies_of, needs_flush

ENVIRONMENT = {"gpu_name": "NVIDIA Test", "driver": "1", "torch": "2", "triton": "3"}


def machine_of(**changes):
    fields = {
        "gpu": "h200_sxm", "spec": gpus.load("h200"), "device": "cpu", "sm_count": 132, "l2_bytes": 0, "timer": HostTimer(),
        "environment": ENVIRONMENT,
    }  # fmt: skip
    return Machine(**{**fields, **changes})


def planned(count, **fields):
    shape = {"q_heads": 2, "kv_heads": 1, "seq_kv": 64, "head_dim": 64, "pattern": "causal", **fields}
    made = [Case(suite="core", runner="attention", kernel="bundled", seq_q=64 + n, **shape) for n in range(count)]
    return [Planned(case, 1.0, None) for case in made]


@pytest.fixture
def prepared(monkeypatch):
    """Names of the cases that were prepared; a case behaves as its entry says."""
    seen, behaviour = [], {}

    def prepare(case, machine):
        seen.append(case.key)
        found = behaviour.get(case.key)
        if isinstance(found, BaseException):
            raise found
        return found or Work([lambda: None], lambda: Checked(0.001, 8), fields={"visited": 3})

    monkeypatch.setattr(run_module, "prepare", prepare)
    monkeypatch.setattr(run_module, "FEWEST", 2)
    monkeypatch.setattr(run_module, "MOST", 3)
    return seen, behaviour


def test_rows_are_measurements(tmp_path, prepared):
    path = tmp_path / "rows.jsonl"
    done = run(planned(3), machine_of(), Store(path))
    rows = read_measurements(path)
    assert [row.id for row in rows] == [f"simattn-h200_sxm/{item.case.key}" for item in planned(3)]
    assert (rows[0].gpu, rows[0].kernel, rows[0].phase, rows[0].kv_heads) == ("h200_sxm", "bundled", "prefill", 1)
    assert all(row.latency_ms > 0 for row in rows)
    written = msgspec.json.decode(path.read_bytes().splitlines()[0])
    assert written == done.rows[0]
    assert {"spread", "timer", "l2", "clock_mhz", "power_limit_w", "date", "driver", "torch", "triton", "gpu_name"} <= {
        *written, "power_limit_w",
    }  # fmt: skip
    assert (written["error_rms"], written["visited"]) == (0.001, 3)


def test_stopped_runs_go_on_where_they_were(tmp_path, prepared):
    path, work = tmp_path / "rows.jsonl", planned(6)
    started = []

    def stop_at_fourth(name):
        started.append(name)
        if len(started) == 4:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        run(work, machine_of(), Store(path), on_case=stop_at_fourth)
    # A line that was being written when the power went.
    with path.open("ab") as file:
        file.write(b'{"id": "cut of')
    done = run(work, machine_of(), Store(path))
    assert (done.skipped, len(done.rows)) == (3, 3)
    ids = [row.id for row in read_measurements(path)]
    assert ids == [f"simattn-h200_sxm/{item.case.key}" for item in work]
    assert run(work, machine_of(), Store(path)).skipped == 6
    assert len(path.read_bytes().splitlines()) == 6


def test_time_is_kept_to(tmp_path, prepared):
    clock = iter([0.0, *(float(n) for n in range(100))])
    done = run(planned(6), machine_of(), Store(tmp_path / "rows.jsonl"), seconds=3.5, now=lambda: next(clock))
    assert (len(done.rows), done.left) == (3, 3)


def test_failures_are_rows_and_absences_are_not(tmp_path, prepared):
    _, behaviour = prepared
    work = planned(4)
    behaviour |= {
        work[0].case.key: WrongError("wrong result"),
        work[1].case.key: RuntimeError("boom\n  at line 3"),
        work[2].case.key: UnavailableError("not installed"),
    }
    path = tmp_path / "rows.jsonl"
    done = run(work, machine_of(), Store(path))
    assert [row.get("failed") for row in done.rows] == ["wrong result", "RuntimeError: boom at line 3", None]
    assert done.unavailable == {"not installed": 1}
    assert [row.latency_ms is None for row in read_measurements(path)] == [True, True, False]
    assert run(work, machine_of(), Store(path)).skipped == 3


def test_files_hold_rows_of_one_machine(tmp_path, prepared):
    path = tmp_path / "rows.jsonl"
    run(planned(1), machine_of(), Store(path))
    other = machine_of(environment={**ENVIRONMENT, "driver": "2"})
    with pytest.raises(UserError, match="driver 1, this is 2"):
        run(planned(2), other, Store(path))


def test_store_refuses_other_files(tmp_path):
    path = tmp_path / "rows.jsonl"
    path.write_text("nonsense\n")
    with pytest.raises(UserError, match="line 1"):
        Store(path)
    with pytest.raises(UserError, match="no such folder"):
        Store(tmp_path / "nowhere" / "rows.jsonl")


def test_inputs_outgrow_l2():
    case, machine = planned(1)[0].case, machine_of(device="cuda", l2_bytes=60 * 2**20)
    large, middle, small = 2**30, 30 * 2**20, 2**10
    assert [copies_of(size, machine, case) for size in (large, middle, small)] == [2, 4, 16]
    for size, flushed in ((large, False), (middle, False), (small, True)):
        work = Work([lambda: None] * copies_of(size, machine, case), lambda: None, size)
        assert needs_flush(work, machine, case) is flushed
    warm = msgspec.structs.replace(case, l2="warm")
    assert copies_of(small, machine, warm) == 1
    assert not needs_flush(Work([lambda: None], lambda: None, small), machine, warm)


def test_a_file_that_is_no_store_is_left_alone(tmp_path):
    """A report of something else, in one line without an end, is not cut; a whole row without an end is kept."""
    other = tmp_path / "report.json"
    other.write_text('{"answer": 42}')
    with pytest.raises(UserError, match="no measurement"):
        Store(other)
    assert other.read_text() == '{"answer": 42}'
    rows = tmp_path / "rows.jsonl"
    rows.write_text('{"id": "a"}\n{"id": "b"}')
    assert [row["id"] for row in Store(rows).rows] == ["a", "b"]
    assert rows.read_text().endswith('{"id": "b"}\n')
    rows.write_text('{"id":"a"}\n{"id":"b", "lat')
    assert [row["id"] for row in Store(rows).rows] == ["a"]
