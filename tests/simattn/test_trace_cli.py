"""simattn trace, driven as a user does: in a process of its own."""

import gzip
import json
import subprocess
import sys

import numpy as np
import pytest

SIMATTN = [sys.executable, "-P", "-c", "from simattn.cli import main; main()", "trace"]
SMALL = ("--hw", "h100", "--pattern", "causal", "--seq-q", "2048", "--q-heads", "4", "--kv-heads", "2")


def run(*arguments, cwd):
    return subprocess.run([*SIMATTN, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, check=False)


def test_a_trace_as_a_file(tmp_path):
    done = run(*SMALL, "-o", "trace.json", cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    content = json.loads((tmp_path / "trace.json").read_text())
    shown = [e for e in content["traceEvents"] if e["ph"] == "X"]
    about = content["otherData"]
    assert len(shown) == about["events"]
    assert {e["pid"] for e in shown} == {1, 2}
    assert not about["capped"]
    words = (
        f"trace.json: {len(shown):,} events, all of {about['kernel_us']:,.1f} us of {about['kernel']} on h100_sxm, 2 of 132 SMs\n"
    )
    assert done.stdout == words


def test_packed_and_plain_hold_the_same(tmp_path):
    assert run(*SMALL, "-o", "trace.json", cwd=tmp_path).returncode == 0
    packed = []
    for name in ("a.json.gz", "b.json.gz"):
        assert run(*SMALL, "-o", name, cwd=tmp_path).returncode == 0
        packed.append((tmp_path / name).read_bytes())
    assert packed[0] == packed[1]
    assert gzip.decompress(packed[0]) == (tmp_path / "trace.json").read_bytes()


def test_for_programs(tmp_path):
    done = run(*SMALL, "--sms", 3, "--events", 100, "--json", "-o", tmp_path / "trace.json", cwd=tmp_path)
    assert done.returncode == 0
    answer = json.loads(done.stdout)
    path = tmp_path / "trace.json"
    assert (answer.pop("output"), answer.pop("bytes")) == (str(path), path.stat().st_size)
    assert answer == json.loads(path.read_text())["otherData"]
    assert (answer["events_most"], answer["capped"], answer["sms_traced"]) == (100, True, 3)
    assert answer["events"] <= 100
    assert answer["spec_hash"]


def test_options_of_the_problem_are_those_of_predict(tmp_path):
    from simattn.cli.predict import predict
    from simattn.cli.trace import trace

    def names(command):
        return {option for parameter in command.params for option in parameter.opts}

    assert names(predict) - names(trace) == {
        "--baseline", "--fidelity", "--clock", "--seed", "--warm", "--without", "--host-ms", "--reuse",
    }  # fmt: skip
    assert names(trace) - names(predict) == {"--sms", "--events", "-o", "--output"}
    np.save(tmp_path / "mask.npy", np.tri(16, dtype=bool))
    shape = ("--seq-q", 2048, "--q-heads", 2, "--kv-heads", 2, "--head-dim", 64, "--q-tile", 64, "--batch", 3, "--dtype", "fp16")
    options = ("--hw", "a100", "--mask", "mask.npy", *shape, "--set", "hw.chip.sm_count=4", "--json", "-o", "t.json")
    answer = json.loads(run(*options, cwd=tmp_path).stdout)
    assert (answer["pattern"], answer["sms"], answer["heads"], answer["q_tile"]) == ("mask_file", 4, 6, [64])


def test_changed_hardware_and_kernels_are_named(tmp_path):
    changes = ("--set", "hw.chip.sm_count=8", "--set", "kernel.launch.order=ascending")
    done = run(*SMALL, "--kernel", "fa3", *changes, "--json", "-o", "t.json", cwd=tmp_path)
    assert "changed: hw.chip.sm_count=8, kernel.launch.order=ascending" in json.loads(done.stdout)["gpu_title"]
    assert json.loads(done.stdout)["sms"] == 8


def test_a_large_call_is_cut_and_says_so(tmp_path):
    done = run("--hw", "b200", "--pattern", "radial", "--events", 5000, "-o", "radial.json.gz", cwd=tmp_path)
    assert done.returncode == 0
    about = json.loads(gzip.decompress((tmp_path / "radial.json.gz").read_bytes()))["otherData"]
    assert about["heads_simulated"] < about["heads"] == 24
    assert done.stderr.splitlines()[-1].startswith(f"simattn: {about['heads_simulated']} of 24 heads are simulated")
    assert about["visits_simulated"] <= 2**20 < about["visits"]
    assert f"the first {about['traced_us']:,.1f} of {about['kernel_us']:,.1f} us" in done.stdout


BAD = [
    ((*SMALL, "-o", "nowhere/trace.json"), "no such folder: nowhere"),
    ((*SMALL, "-o", "trace.txt"), "--output must end in one of .json, .json.gz"),
    ((*SMALL, "-o", "."), "is a directory"),
    ((*SMALL, "-o", "folder.json"), "is a directory"),
    (SMALL, "Missing option '-o'"),
    ((*SMALL, "--kernel", "fa9", "-o", "t.json"), "unknown kernel"),
    ((*SMALL, "--kernel", "fa4", "-o", "t.json"), "does not run on h100_sxm"),
    ((*SMALL, "--sms", "0", "-o", "t.json"), "--sms"),
    ((*SMALL, "--events", "0", "-o", "t.json"), "--events"),
    ((*SMALL, "--events", "many", "-o", "t.json"), "--events"),
    (("--hw", "h1000", "--pattern", "causal", "-o", "t.json"), "unknown GPU"),
    (("--hw", "h100", "--pattern", "causl", "-o", "t.json"), "did you mean 'causal'"),
    (("--hw", "h100", "-o", "t.json"), "one of --pattern, --mask and --mask-mod"),
]


@pytest.mark.parametrize(("arguments", "words"), BAD, ids=[words for _, words in BAD])
def test_bad_input_gives_one_line_and_exit_2(arguments, words, tmp_path):
    (tmp_path / "folder.json").mkdir()
    done = run(*arguments, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("simattn: ")
    assert words in done.stderr
    assert not (tmp_path / "t.json").exists()
