"""simattn measure: dry runs need nothing, tiny runs go through every suite under the interpreter."""

import json
import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
from simattn.validation import read_measurements

SUITES = ("ceilings", "core", "sparse", "micro", "decode", "aux", "blind")
SIMATTN = [sys.executable, "-P", "-c", "from simattn.cli import main; main()"]

needs_torch = pytest.mark.skipif(not (find_spec("torch") and find_spec("triton")), reason="needs torch and triton")


def run(*arguments, cwd=None, **environment):
    return subprocess.run(
        [*SIMATTN, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, env={**os.environ, **environment}, check=False
    )


DRY = """
import sys
from simattn.cli import simattn
for suite in sys.argv[1:]:
    simattn.main(["measure", "--suite", suite, "--dry-run", "--json"], standalone_mode=False)
assert not {"torch", "triton"} & set(sys.modules)
"""


def test_dry_run_of_every_suite_without_torch():
    done = subprocess.run([sys.executable, "-P", "-c", DRY, *SUITES], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    answers = [json.loads(line) for line in done.stdout.splitlines()]
    assert [a["suite"] for a in answers] == list(SUITES)
    for a in answers:
        assert a["gpu"] == "h200_sxm"
        assert a["seconds"] == pytest.approx(sum(case["seconds"] for case in a["cases"]), rel=0.01)


def test_dry_run_for_people():
    done = run("measure", "--suite", "core", "--dry-run", "--only", "fa2", "--limit", 3, "--hw", "a100")
    assert done.returncode == 0, done.stderr
    assert "3 cases of suite core take" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ("--suite cor --dry-run", "did you mean 'core'"),
        ("--suite core --dry-run --only nosuch", "no case of suite core holds 'nosuch'"),
        ("--suite core --dry-run --hw b2000", "did you mean 'b200'"),
    ],
)
def test_mistakes_take_one_line(arguments, words):
    done = run("measure", *arguments.split())
    assert (done.returncode, done.stdout) == (2, "")
    assert words in done.stderr
    assert len(done.stderr.splitlines()) == 1


def test_without_a_gpu():
    done = run("measure", "--suite", "core", CUDA_VISIBLE_DEVICES="")
    assert (done.returncode, done.stdout) == (2, "")
    assert len(done.stderr.splitlines()) == 1
    assert "--dry-run" in done.stderr


TINY = """
import sys
from simattn.cli import simattn
for suite in sys.argv[1:]:
    simattn.main(["measure", "--suite", suite, "--tiny", "--out", f"{suite}.jsonl", "--json"], standalone_mode=False)
"""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    """Every suite, run whole in one process: folder, and the answers by suite."""
    folder = tmp_path_factory.mktemp("tiny")
    environment = {**os.environ, "CUDA_VISIBLE_DEVICES": ""}
    command = [sys.executable, "-P", "-c", TINY, *SUITES]
    done = subprocess.run(command, capture_output=True, text=True, cwd=folder, env=environment, check=False)
    assert done.returncode == 0, done.stderr
    return folder, {a["suite"]: a for a in map(json.loads, done.stdout.splitlines())}, done.stderr


@needs_torch
@pytest.mark.parametrize("suite", SUITES)
def test_tiny_run(suite, tiny):
    folder, answers, messages = tiny
    found = answers[suite]
    assert found["failed"] == 0, messages
    assert found["measured"] >= 4
    rows = read_measurements(folder / f"{suite}.jsonl")
    assert len({row.id for row in rows}) == len(rows) == found["measured"]
    assert all(row.latency_ms > 0 and row.gpu == "cpu-interpreter" for row in rows)
    written = [json.loads(line) for line in (folder / f"{suite}.jsonl").read_text().splitlines()]
    assert all(row["interpreted"] for row in written)
    if suite in ("core", "sparse", "micro", "decode", "aux"):
        assert all(row["error_rms"] < 0.02 for row in written)


@needs_torch
def test_tiny_run_of_every_bundled_kernel(tiny):
    folder, _, _ = tiny
    kernels = {row.kernel for suite in SUITES for row in read_measurements(folder / f"{suite}.jsonl")}
    side = {"permute", "pool", "score", "topk", "append", "merge"}
    assert {"bundled", "fa2", "flex", "bundled_decode", "bundled_gather", "exp2", "mma", "mma_exp2", "gemm", *side} <= kernels


@needs_torch
def test_blind_predictions_are_older_than_the_measurements(tiny):
    folder, answers, _ = tiny
    predicted = [json.loads(line) for line in (folder / "blind.predictions.jsonl").read_text().splitlines()]
    measured = [json.loads(line) for line in (folder / "blind.jsonl").read_text().splitlines()]
    assert {row["id"] for row in measured} <= {row["id"] for row in predicted}
    assert max(row["date"] for row in predicted) <= min(row["date"] for row in measured)
    assert [row["id"] for row in answers["blind"]["rows"]] == [row["id"] for row in predicted]


@needs_torch
def test_a_second_run_measures_nothing(tiny):
    folder, answers, _ = tiny
    before = (folder / "ceilings.jsonl").read_bytes()
    arguments = ["measure", "--suite", "ceilings", "--tiny", "--out", "ceilings.jsonl", "--json"]
    done = run(*arguments, cwd=folder, CUDA_VISIBLE_DEVICES="")
    again = json.loads(done.stdout)
    assert (again["measured"], again["skipped"]) == (0, answers["ceilings"]["measured"])
    assert (folder / "ceilings.jsonl").read_bytes() == before


@needs_torch
def test_rows_can_be_validated(tiny):
    folder, _, _ = tiny
    done = run("validate", "--table", folder / "core.jsonl", "--json")
    assert done.returncode == 0, done.stderr
    assert all("cpu-interpreter" in row["skipped"] for row in json.loads(done.stdout)["rows"])


def test_detect_without_a_gpu():
    done = run("hw", "detect", CUDA_VISIBLE_DEVICES="", PATH="")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("simattn: no NVIDIA GPU is seen")
    done = run("hw", "detect", "--out", "mine.json")
    assert done.returncode == 2
    assert ".toml" in done.stderr
