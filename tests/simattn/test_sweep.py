"""sweep: points, rows, the files of a sweep that is killed, and who predicts."""

import csv
import io
import json
import os
import random
import signal
import subprocess
import sys
import time

import click
import pyarrow.parquet as pq
import pytest
from simattn.kernels import kernels

import simattn
from simattn import UserError
from simattn.cli import simattn as cli
from simattn.sweeps import Range, SweepSpec
from simattn.sweeps.row import columns
from simattn.sweeps.space import Sample, Space, chunks
from simattn.sweeps.store import KEY

from .test_cli import SIMATTN, run

SMALL = {"q_heads": 4, "kv_heads": 4, "head_dim": 64}
SPEC = {
    "patterns": ["sliding_window", "gna"],
    "hw": ["h100", "b200"],
    "vary": {"window": [64, 128, 256], "stride": [1, 16], "seq_q": [1024, 2048]},
    "options": SMALL,
}


# -- what is asked -------------------------------------------------------------------------------------------------------


def test_points_are_all_combinations_of_what_a_pattern_has():
    points = list(Space(SweepSpec.read(SPEC)))
    assert [p.number for p in points] == list(range(36))
    asked = {(p.pattern, p.hw, p.kernel, *sorted(p.options.items())) for p in points}
    assert len(asked) == 36
    windows = [p for p in points if p.pattern == "sliding_window"]
    assert len(windows) == 2 * 2 * 3
    assert all("stride" not in p.options for p in windows)
    assert {p.options["stride"] for p in points if p.pattern == "gna"} == {1, 16}


def test_points_of_one_problem_follow_each_other():
    points = list(Space(SweepSpec.read(SPEC)))
    assert [p.options["seq_q"] for p in points] == [1024] * 18 + [2048] * 18
    assert [p.hw for p in points[:4]] == ["h100", "b200", "h100", "b200"]


def test_points_that_differ_in_heads_alone_are_predicted_together():
    space = Space(SweepSpec.read({**SPEC, "options": {}, "vary": {**SPEC["vary"], "q_heads": [4, 8, 16], "batch": [1, 2]}}))
    order = space.work_order().tolist()
    assert sorted(order) == list(range(len(space)))
    for i in range(0, len(order), 6):
        alike = [space[n] for n in order[i : i + 6]]
        assert len({(p.pattern, p.hw, p.options["seq_q"], p.options["window"], p.options.get("stride")) for p in alike}) == 1
    assert [space[n].options["seq_q"] for n in order] == sorted(space[n].options["seq_q"] for n in order)
    drawn = Sample(space, 30, 1)
    ranks = [order.index(place) for place in drawn.places]
    assert [ranks[n] for n in drawn.work_order()] == sorted(ranks)


@pytest.mark.parametrize("total", [1, 2, 255, 256, 300, 10_000, 1_000_001])
def test_chunks_hold_every_point_once(total):
    found = list(chunks(total))
    assert sum(map(len, found)) == total
    assert [found[0].start, *(chunk.stop for chunk in found)] == [*(chunk.start for chunk in found), total]


def test_a_sample_is_drawn_without_putting_back():
    spec = SweepSpec.read({**SPEC, "random": 20, "seed": 5})
    space = Space(spec)
    drawn = [space_point(p) for p in Sample(space, 20, 5)]
    assert len(set(drawn)) == 20
    assert set(drawn) < {space_point(p) for p in space}
    assert drawn == [space_point(p) for p in Sample(space, 20, 5)]
    assert drawn != [space_point(p) for p in Sample(space, 20, 6)]
    with pytest.raises(UserError, match="36 points, fewer than the 37"):
        Sample(space, 37, 0)


def space_point(p):
    return (p.pattern, p.hw, *sorted(p.options.items()))


def test_ranges():
    assert Range.parse("512..4096:512").values() == tuple(range(512, 4097, 512))
    assert Range.parse("0.1..0.5:0.1").values() == pytest.approx((0.1, 0.2, 0.3, 0.4, 0.5))
    assert Range.parse("30x48x80") is None
    assert Range.parse("a..b") is None
    log = Range.parse("1..1024:log")
    drawn = [log.at(random.Random(i).random()) for i in range(2000)]
    assert min(drawn) == 1
    assert max(drawn) <= 1024
    assert 0.4 < sum(x <= 32 for x in drawn) / 2000 < 0.6
    whole = [Range.parse("1..3").at(i / 300) for i in range(300)]
    assert [whole.count(n) for n in (1, 2, 3)] == [100, 100, 100]
    density = Range.parse("0.05..0.5")
    assert all(0.05 <= density.at(i / 9) <= 0.5 for i in range(9))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"patterns": ["nothing"]}, "unknown pattern 'nothing'"),
        ({"patterns": []}, "patterns: .*length >= 1"),
        ({"hw": ["h1000"]}, "unknown GPU 'h1000'"),
        ({"kernels": ["fa9"]}, "unknown kernel 'fa9'"),
        ({"vary": {"windo": [1]}}, "unknown option 'windo'; did you mean 'window'"),
        ({"vary": {"window": []}}, "length >= 1"),
        ({"vary": {"window": [64, 64]}}, "window has a value twice: 64, 64"),
        ({"vary": {"window": "64..256"}}, r"a grid needs steps: window=64\.\.256:STEP"),
        ({"vary": {"window": "256..64:8"}}, "a range rises"),
        ({"vary": {"window": "64..256:0"}}, "step of a range is above 0"),
        ({"vary": {"window": "0..256:log"}, "random": 3}, "a log range lies above 0"),
        ({"vary": {"q_heads": [4]}}, "q_heads has one value for all points, and varies"),
        ({"vary": {"hw": ["h100"]}}, "hw is no name to vary"),
        ({"vary": 3}, "vary: .*object.*got 3"),
        ({"random": 0}, "random: .*>= 1.*got 0"),
        ({"random": 10**6}, "the grid has 36 points"),
        ({"optimize": "latency"}, "unknown objective 'latency'; did you mean 'latency_ms'"),
        ({"optimize": "latency_ms"}, "a search needs both"),
        ({"optimize": "latency_ms", "trials": 3, "random": 3}, "either a random sample or a search"),
        ({"vary": {"grid": ["30x48"]}}, "grid: .*got `str`"),
        ({"options": {"fidelity": "slow"}, "vary": {}}, "fidelity: .*slow"),
        ({"nothing": 3}, "unknown field 'nothing'"),
        ({"jobs": 0}, "jobs must be at least 1"),
        ({"output": "x.txt"}, r"must end in one of .parquet, .csv"),
        ({"output": "/no/where/x.csv"}, "no such folder: /no/where"),
        ({"scheduler": "tcp://127.0.0.1:1"}, "no Dask scheduler answers at tcp://127.0.0.1:1"),
        ({"jobs": 2, "scheduler": "tcp://127.0.0.1:1"}, "either jobs or a scheduler"),
        ({"options": {"file": "no.npy"}, "patterns": ["mask_file"], "vary": {}}, "no.npy: No such file"),
    ],
)
def test_what_cannot_be_asked(change, message, monkeypatch):
    monkeypatch.setattr("simattn.sweeps.workers.CONNECT_S", 1)
    with pytest.raises(UserError, match=message) as caught:
        simattn.sweep(**{**SPEC, **change})
    assert "\n" not in str(caught.value)


# -- rows ----------------------------------------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def found():
    return simattn.sweep(**SPEC, jobs=1)


def test_rows_are_what_predict_says(found):
    assert [row["point"] for row in found.rows] == list(range(36))
    for number in (0, 7, 13, 35):
        point, row = Space(found.spec)[number], found.rows[number]
        p = simattn.predict(point.pattern, point.hw, **point.options)
        assert (row["latency_ms"], row["speedup"], row["gpu"], row["kernel"]) == (p.latency_ms, p.speedup, p.gpu, p.kernel)
        assert (row["tiles_visited"], row["tiles_full"], row["tiles_partial"]) == (p.tiles.visited, p.tiles.full, p.tiles.partial)
        assert (row["window"], row["seq_q"], row["limiter"]) == (point.options["window"], point.options["seq_q"], p.limiter)
        assert [row[f"{stage.stage}_ms"] for stage in p.waterfall[:-1]] == [stage.latency_ms for stage in p.waterfall[:-1]]
        assert list(row) == [column.name for column in columns(found.spec)]


def test_points_that_fail_are_rows():
    made = simattn.sweep(
        patterns="gna", hw=["h100", "b200"], vary={"window": [(8, 8), (2048,), (9000,)]}, options={"seq_q": 4096}
    )
    assert made.failed == 4
    assert [row["error"] is None for row in made.rows] == [False, False, True, True, False, False]
    assert made.rows[0]["error"].startswith("window must have one number or one per axis")
    assert (made.rows[0]["window"], made.rows[0]["gpu"], made.rows[0]["seq_q"]) == ("8x8", "h100_sxm", 4096)
    assert made.rows[0]["latency_ms"] is None
    assert made.best()[0]["window"] == "2048"


def test_what_is_no_mistake_of_the_user_is_a_row_too(monkeypatch):
    def broken(*args, **kwargs):
        raise ZeroDivisionError("of\nall things")

    monkeypatch.setattr("simattn.sweeps.row.predict", broken)
    made = simattn.sweep(patterns="causal", hw="h100", options={"seq_q": 1024})
    assert [row["error"] for row in made.rows] == ["ZeroDivisionError: of all things"]


def test_a_gpu_can_vary():
    made = simattn.sweep(patterns="causal", hw="h100", vary={"hw.chip.sm_count": [66, 132]}, options={"seq_q": 8192})
    half, whole = made.rows
    assert half["latency_ms"] > 1.5 * whole["latency_ms"]
    changed = simattn.load_gpu("h100", chip={"sm_count": 66})
    assert half["latency_ms"] == simattn.predict("causal", changed, seq_q=8192).latency_ms


def test_a_search_finds_what_a_grid_finds():
    fields = {"patterns": "sliding_window", "hw": ["h100", "a100"], "options": {**SMALL, "seq_q": 4096}, "seed": 3}
    searched = simattn.sweep(**fields, vary={"window": "64..2048:log"}, optimize="speedup", trials=24)
    assert len(searched.rows) == 24
    assert searched.best()[0]["window"] < 200
    again = simattn.sweep(**fields, vary={"window": "64..2048:log"}, optimize="speedup", trials=24)
    assert again.rows == searched.rows


def test_blocks_of_a_mask(tmp_path):
    import numpy as np

    rng, n = np.random.default_rng(2), 512
    mask = (rng.random((n // 8, n // 8)) < 0.02).repeat(8, 0).repeat(8, 1) | np.eye(n, dtype=bool)
    np.save(tmp_path / "mask.npy", mask)
    made = simattn.sweep(
        patterns="mask_file",
        hw="h100",
        vary={"block": [32, 64, 128]},
        options={**SMALL, "seq_q": n, "file": str(tmp_path / "mask.npy")},
    )
    for row in made.rows:
        b, heads = row["block"], 4
        cut = mask.reshape(n // b, b, n // b, b)
        visited, full = cut.any((1, 3)), cut.all((1, 3))
        assert (row["block_size"], row["blocks_active"], row["blocks_total"]) == (b, visited.sum(), (n // b) ** 2)
        assert (row["tiles_visited"], row["tiles_full"]) == (heads * visited.sum(), heads * full.sum())
        assert row["tiles_partial"] == row["tiles_visited"] - row["tiles_full"]
        assert row["bound_flop"] == pytest.approx(n * n / mask.sum())
        assert (row["q_tile"], row["kv_tile"]) == (str(b), str(b))


def test_rows_say_how_many_ctas_share_an_sm():
    asked = {"seq_q": 4096, "head_dim": 64}
    made = simattn.sweep(patterns="causal", hw=["a100", "h100"], kernels=["fa2"], options=asked)
    for row in made.rows:
        spec, kernel = simattn.load_gpu(row["gpu"]), kernels.load("fa2")
        tile = next(tile for tile in kernel.tiles if (str(*tile.q), str(*tile.kv)) == (row["q_tile"], row["kv_tile"]))
        assert row["ctas_per_sm"] == kernel.ctas_per_sm(spec, tile, 64, 64, 2) > 1


# -- files ---------------------------------------------------------------------------------------------------------------


def test_parquet_says_what_it_holds(found, tmp_path):
    path = tmp_path / "out.parquet"
    made = simattn.sweep(**SPEC, output=path)
    assert made.rows == found.rows
    table = pq.read_table(path)
    assert table.to_pylist() == found.rows
    about = json.loads(table.schema.metadata[KEY])
    assert (about["hash"], about["version"]) == (made.identity.hash, simattn.__version__)
    assert about["gpus"] == {name: simattn.load_gpu(name).spec_hash() for name in ("h100", "b200")}
    assert SweepSpec.read(about["spec"]) == made.spec
    assert table.schema.field("latency_ms").metadata == {b"unit": b"ms"}
    assert str(table.schema.field("window").type) == "int64"
    assert sorted(os.listdir(tmp_path)) == ["out.parquet"]
    assert simattn.sweep(**SPEC, output=path).rows == found.rows


def test_other_forms_hold_the_same(found, tmp_path):
    for form in ("csv", "json", "html"):
        simattn.sweep(**SPEC, output=tmp_path / f"out.{form}")
    with (tmp_path / "out.csv").open(newline="") as file:
        read = list(csv.DictReader(file))
    assert [row["latency_ms"] for row in read] == [repr(row["latency_ms"]) for row in found.rows]
    assert json.loads((tmp_path / "out.json").read_text())["rows"] == found.rows
    page = (tmp_path / "out.html").read_text()
    assert page.count("<tr>") == 37
    assert "latency_ms [ms]" in page
    assert "http" not in page
    simattn.sweep(**SPEC, output=tmp_path / "out.json")


def test_another_sweep_is_refused(tmp_path):
    path = tmp_path / "out.parquet"
    small = {"patterns": "causal", "hw": "h100", "vary": {"seq_q": [512, 1024]}}
    simattn.sweep(**small, output=path)
    with pytest.raises(UserError, match=r"of another sweep \(other vary\); remove it, or write elsewhere"):
        simattn.sweep(**{**small, "vary": {"seq_q": [512, 2048]}}, output=path)
    path.write_bytes(b"something else")
    with pytest.raises(UserError, match="not by a sweep"):
        simattn.sweep(**small, output=path)


def test_one_at_a_time(tmp_path):
    import fcntl

    path = tmp_path / "out.csv"
    (tmp_path / "out.csv.parts").mkdir()
    with (tmp_path / "out.csv.parts" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        with pytest.raises(UserError, match="another sweep is at work"):
            simattn.sweep(patterns="causal", hw="h100", output=path)


@pytest.mark.parametrize("search", [False, True])
def test_a_stopped_sweep_goes_on(search, tmp_path):
    """What is there is not predicted again, and the rows are those of a sweep that was never stopped."""
    how = {"optimize": "latency_ms", "trials": 24} if search else {}
    whole = simattn.sweep(**SPEC, **how)

    class StopError(Exception):
        pass

    def stop(done, total, failed):
        if done >= 11:
            raise StopError

    path = tmp_path / "out.parquet"
    with pytest.raises(StopError):
        simattn.sweep(**SPEC, **how, output=path, progress=stop)
    assert not path.exists()
    kept = len(list((tmp_path / "out.parquet.parts").glob("part-*.json")))
    told = []
    made = simattn.sweep(**SPEC, **how, output=path, progress=lambda *n: told.append(n))
    assert told[0][0] == kept * (8 if search else 1)
    assert told[-1][0] == len(whole.rows)
    assert made.rows == whole.rows == pq.read_table(path).to_pylist()


MANY = (
    "sweep", "--hw", "h100,b200", "--pattern", "sliding_window,gna", "--vary", "window=64..512:64", "--vary", "stride=1,8,64",
    "--vary", "seq_q=1024,2048,4096", "--vary", "q_heads=8,16", "--head-dim", "64",
)  # fmt: skip


@pytest.mark.parametrize(("jobs", "times"), [(1, 3), (2, 1)])
def test_killed_at_any_moment(jobs, times, tmp_path):
    whole, path = tmp_path / "whole.parquet", tmp_path / "killed.parquet"
    assert run(*MANY, "-o", whole).returncode == 0
    rng, kills = random.Random(jobs), 0
    while kills < times:
        started = subprocess.Popen(
            [*SIMATTN, *MANY, "-o", str(path), "--jobs", str(jobs)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        )
        # From the first part on: before it nothing has been done.
        while started.poll() is None and not list(tmp_path.glob("killed.parquet.parts/part-*")):
            time.sleep(0.01)
        time.sleep(rng.random() * 0.2)
        started.send_signal(signal.SIGKILL)
        kills += started.wait() == -signal.SIGKILL
        if path.exists():
            break
    assert kills >= 1
    done = run(*MANY, "-o", path, "--jobs", jobs)
    assert done.returncode == 0, done.stderr
    assert pq.read_table(path).to_pylist() == pq.read_table(whole).to_pylist()
    assert pq.read_table(path).num_rows == 384


# -- who predicts --------------------------------------------------------------------------------------------------------


def test_processes_give_the_same_rows(found):
    assert simattn.sweep(**SPEC, jobs=2).rows == found.rows


@pytest.fixture
def cluster(tmp_path):
    """The address of a scheduler with two workers, each of them a process, as they are started from a shell."""
    about = tmp_path / "scheduler.json"
    dask = [sys.executable, "-m", "dask"]
    where = ("--scheduler-file", str(about), "--no-dashboard")
    commands = [[*dask, "scheduler", "--host", "127.0.0.1", "--port", "0", *where]]
    commands += [[*dask, "worker", "--nthreads", "1", "--no-nanny", "--local-directory", str(tmp_path), *where]] * 2
    started = [subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) for command in commands]
    try:
        while not about.exists():
            assert started[0].poll() is None
            time.sleep(0.05)
        address = json.loads(about.read_text())["address"]
        from distributed import Client

        with Client(address, set_as_default=False) as client:
            client.wait_for_workers(2, timeout=120)
        yield address
    finally:
        for process in started:
            process.kill()
        for process in started:
            process.wait()


def test_a_cluster_gives_the_same_rows(found, cluster, tmp_path):
    made = simattn.sweep(**SPEC, scheduler=cluster, output=tmp_path / "out.parquet")
    assert made.rows == found.rows == pq.read_table(tmp_path / "out.parquet").to_pylist()


def test_a_worker_of_another_version_is_refused(found):
    from simattn.sweeps.workers import Task

    with pytest.raises(UserError, match="another simattn"):
        Task(found.spec, {}, "0.0.1", found.identity.calibrations)((0, []))


# -- on the command line -------------------------------------------------------------------------------------------------

SHORT = ("sweep", "--hw", "h100", "--pattern", "sliding_window", "--vary", "window=64,128", "--seq-q", "1024", "--kv-heads", "4")


def test_on_the_command_line(tmp_path):
    table = run(*SHORT)
    assert table.returncode == 0, table.stderr
    for words in ("window", "dense ms", "tiles left out", "limiter"):
        assert words in table.stdout
    assert table.stderr == ""
    rows = json.loads(run(*SHORT, "--json").stdout)
    assert [row["window"] for row in rows] == [64, 128]
    assert [row["latency_ms"] for row in csv.DictReader(io.StringIO(run(*SHORT, "--csv").stdout))] == [
        repr(row["latency_ms"]) for row in rows
    ]
    assert run(*SHORT, "--html").stdout.startswith("<!doctype html>")
    drawn = run(*SHORT, "--picture", tmp_path / "sweep.html", "--json")
    assert json.loads(drawn.stdout) == rows
    assert "time, ms" in (tmp_path / "sweep.html").read_text()
    assert "--picture must end in one of" in run(*SHORT, "--picture", "sweep.gif").stderr
    file = tmp_path / "sweep.toml"
    file.write_text('patterns = ["sliding_window"]\n[vary]\nwindow = [64, 128]\n[options]\nseq_q = 1024\nkv_heads = 8\n')
    assert json.loads(run("sweep", file, "--hw", "h100", "--kv-heads", 4, "--json").stdout) == rows


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "give --pattern or --mask"),
        (("--pattern", "causal"), "give --hw"),
        (("--hw", "h100", "--pattern", "causal", "--vary", "seq_q"), "expected NAME=VALUE"),
        (("--hw", "h100", "--pattern", "causal", "--vary", "nothing=3"), "unknown option 'nothing'"),
        (("--hw", "h100", "--pattern", "causal", "--vary", "seq_q=5..x"), "a range is LOW..HIGH"),
        (("--hw", "h100", "--pattern", "causal", "--seq-q", "1024", "--vary", "seq-q=5"), "seq_q is set, and varies"),
        (("--hw", "h100", "--pattern", "causal", "--mask", "x.npy"), "either --pattern or --mask"),
        (("none.toml",), "none.toml: No such file"),
        (("--hw", "h100", "--pattern", "causal", "-o", "x.xls"), "must end in one of"),
        (("--hw", "h100", "--pattern", "causal", "--trials", "3"), "a search needs both"),
    ],
)
def test_mistakes_are_refused(arguments, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises((UserError, click.ClickException), match=message):
        cli.main(["sweep", *arguments], standalone_mode=False)


def test_a_mistake_is_one_line():
    done = run("sweep", "--hw", "h100", "--pattern", "causal", "--vary", "seq_q=many")
    assert done.returncode == 2
    assert done.stderr == "simattn: sweep: seq_q: Expected `int | null`, got `str` (got 'many')\n"


def test_other_tables_have_the_same_forms():
    for command in (("patterns", "list"), ("hw", "list"), ("models", "list"), ("kernels", "list")):
        rows = json.loads(run(*command, "--json").stdout)
        assert len(list(csv.DictReader(io.StringIO(run(*command, "--csv").stdout)))) == len(rows)
        assert run(*command, "--html").stdout.count("<tr>") == len(rows) + 1
