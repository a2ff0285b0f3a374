"""The command line, driven as a user does: in a process of its own."""

import json
import os
import subprocess
import sys

import numpy as np
import pytest

SIMATTN = [sys.executable, "-P", "-c", "from simattn.cli import main; main()"]


def run(*arguments, cwd=None, **environment):
    return subprocess.run(
        [*SIMATTN, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, env={**os.environ, **environment}, check=False
    )


def answer(*arguments, **kwargs):
    done = run(*arguments, "--json", **kwargs)
    assert done.returncode == 0, done.stderr
    assert len(done.stdout.splitlines()) == 1
    return json.loads(done.stdout)


def test_the_main_job():
    p = answer("predict", "--hw", "b200", "--pattern", "radial")
    assert p["blocks"] == {"size": 128, "active": 226056, "total": 813604}
    assert p["gpu"] == "b200_sxm"
    assert p["pattern"] == "radial"
    assert p["waterfall"][-1]["latency_ms"] == p["latency_ms"]


def test_the_main_job_for_people():
    done = run("predict", "--hw", "b200", "--pattern", "radial")
    assert done.returncode == 0
    for words in (
        "NVIDIA B200",
        "latency",
        "uncalibrated",
        "speedup",
        "bounds",
        "226,056 of 813,604",
        "Where the time goes",
        "limited by",
    ):
        assert words in done.stdout
    for stage in ("ideal", "tiles", "padding", "pipeline", "memory", "schedule", "clock", "launch", "side"):
        assert f"\n{stage} " in done.stdout


def test_a_kernel_of_ones_own_is_a_file(tmp_path):
    """Its name is on no shelf; what in it is from memory is said all the same."""
    shape = ["--hw", "h100", "--pattern", "causal", "--seq-q", 2048, "--q-heads", 8, "--kv-heads", 8]
    times = []
    for prologue in (1000, 9000):
        own = tmp_path / f"mine_{prologue}.toml"
        own.write_text(
            f'name = "mine"\ninherits = "fa3"\nborrows = false\n[timing]\nprologue_cycles = {prologue}\n'
            '[meta]\ntiming = { kind = "recalled", source = "me" }\n'
        )
        p = answer("predict", *shape, "--kernel", own)
        assert p["kernel"] == "mine"
        assert "mine: timing" in p["provenance"]["recalled"]
        times.append(p["latency_ms"])
    assert times[1] > times[0]


def test_options_override_the_workload(tmp_path):
    options = "--seq-q 16384 --q-heads 32 --kv-heads 8 --head-dim 128 --set window=128 --batch 2 --dtype fp16 --clock burst"
    p = answer("predict", "--hw", "h100", "--pattern", "sliding_window", *options.split())
    assert (p["problem"]["seq_q"], p["problem"]["kv_heads"], p["problem"]["batch"]) == (16384, 8, 2)
    assert (p["pattern_params"]["window"], p["clock"], p["problem"]["causal"]) == (128, "burst", True)
    faster = answer("predict", "--hw", "h100", "--pattern", "radial", "--set", "hw.chip.sm_count=264")
    assert faster["latency_ms"] < answer("predict", "--hw", "h100", "--pattern", "radial")["latency_ms"]
    own = tmp_path / "mine.toml"
    own.write_text('inherits = "h100_sxm"\nname = "mine"\ntitle = "mine"\n')
    assert answer("predict", "--hw", own, "--pattern", "causal")["gpu"] == "mine"


def test_tiles_of_ones_own():
    p = answer("predict", "--hw", "b200", "--pattern", "gna", "--q-tile", "4x8x8", "--kv-tile", "2x8x8")
    assert p["tiles"]["partial"] == 0
    assert p["bounds"]["tile_worst"] == pytest.approx(11.11, abs=0.01)


def test_mask_files_round_trip(tmp_path):
    summary = answer("mask", "--pattern", "radial", "-o", tmp_path / "radial.npz")
    assert (summary["q_tiles"], summary["visited"]) == (902, 226056)
    saved = np.load(tmp_path / "radial.npz")
    assert saved["indptr"][-1] == len(saved["indices"]) == 226056
    from_file = answer("predict", "--hw", "h100", "--mask", tmp_path / "radial.npz")
    assert from_file["tiles"]["visited"] == 226056 * 24
    dense = np.ones((8, 8), bool)
    np.save(tmp_path / "dense.npy", dense)
    p = answer("predict", "--hw", "h100", "--mask", tmp_path / "dense.npy", "--seq-q", 1024, "--q-heads", 1, "--kv-heads", 1)
    assert p["tiles"]["visited"] == 64
    run("mask", "--pattern", "causal", "--seq-q", 256, "-o", tmp_path / "causal.json")
    plain = json.loads((tmp_path / "causal.json").read_text())
    assert (plain["indptr"], plain["indices"], plain["kinds"]) == ([0, 1, 3], [0, 0, 1], [1, 0, 1])


@pytest.mark.parametrize("suffix", ["png", "html"])
def test_mask_pictures(tmp_path, suffix):
    pytest.importorskip("matplotlib" if suffix == "png" else "plotly")
    path = tmp_path / f"causal.{suffix}"
    done = run("mask", "--pattern", "causal", "--seq-q", 2048, "-o", path)
    assert done.returncode == 0, done.stderr
    assert path.stat().st_size > 3000
    assert path.read_bytes().lower().startswith(b"\x89png" if suffix == "png" else b"<!doctype html>")


def test_lists_and_pages():
    assert {"b200_sxm", "mi300x", "l20"} <= {row["name"] for row in answer("hw", "list")}
    assert {"radial", "gna", "dense"} <= {row["name"] for row in answer("patterns", "list")}
    assert {"hunyuan-video", "llama-3.1-8b"} <= {row["name"] for row in answer("models", "list")}
    assert {"fa3", "natten_hopper"} <= {row["name"] for row in answer("kernels", "list")}
    assert any(v["path"] == "tensor.bf16_f32" and v["unit"] == "FLOP/clk/SM" for v in answer("hw", "show", "h100")["values"])
    assert answer("patterns", "show", "radial")["defaults"]["decay"] == 0.95
    assert answer("models", "show", "hunyuan-video")["layers"] == 60
    assert answer("kernels", "show", "fa3")["program"] == "wgmma_pingpong"
    pages = "hw list,hw show h100,hw check h100,patterns list,patterns show gna,models list,models show flux-dev,kernels list"
    for page in pages.split(","):
        done = run(*page.split())
        assert done.returncode == 0, done.stderr
        assert len(done.stdout.splitlines()) > 3


def test_hw_check_finds_a_sparse_peak(tmp_path):
    path = tmp_path / "wrong.toml"
    path.write_text('inherits = "h100_sxm"\n[check]\nbf16_tflops = 1979\n')
    done = run("hw", "check", path)
    assert done.returncode == 1
    assert "structured sparsity" in " ".join(done.stdout.split())
    assert run("hw", "check").returncode == 0


BROKEN = {
    "broken.toml": 'name = "x"\n[chip\n',
    "nan.toml": 'inherits = "h100_sxm"\n[mem.dram]\ngbps = nan\n',
    "typo.toml": 'inherits = "h100_sxm"\n[chip]\nsm_cuont = 3\n',
    "orphan.toml": 'inherits = "nobody"\n',
    "short.toml": 'name = "x"\n',
    "garbage.npy": "garbage",
}

B200 = ("predict", "--hw", "b200", "--pattern")
BAD = [
    (("predict", "--hw", "b2000", "--pattern", "radial"), "did you mean 'b200'"),
    ((*B200, "radiall"), "did you mean 'radial'"),
    (("predict", "--hw", "b200"), "one of --pattern, --mask and --mask-mod"),
    (("predict", "--pattern", "radial"), "--hw"),
    ((*B200, "gna", "--set", "window=40x24x24"), "at most the grid"),
    ((*B200, "gna", "--set", "stride=20x8x8"), "stride must be at most the window"),
    ((*B200, "gna", "--set", "window=18x24"), "one per axis"),
    ((*B200, "radial", "--q-heads", "0"), "q_heads"),
    ((*B200, "causal", "--q-heads", "30", "--kv-heads", "8"), "must divide"),
    ((*B200, "causal", "--kv-heads", "0"), "kv_heads must be at least 1"),
    ((*B200, "radial", "--text", "-5"), "text"),
    ((*B200, "radial", "--batch", "-1"), "batch"),
    (("predict", "--hw", "broken.toml", "--pattern", "radial"), "not a TOML file"),
    (("predict", "--hw", "nan.toml", "--pattern", "radial"), "mem.dram.gbps"),
    (("predict", "--hw", "typo.toml", "--pattern", "radial"), "did you mean 'sm_count'"),
    (("predict", "--hw", "orphan.toml", "--pattern", "radial"), "unknown GPU 'nobody'"),
    (("predict", "--hw", "short.toml", "--pattern", "radial"), "missing required"),
    (("predict", "--hw", "missing.toml", "--pattern", "radial"), "no such GPU file"),
    ((*B200, "radial", "--set", "deacy=0.5"), "did you mean 'decay'"),
    ((*B200, "radial", "--set", "decay=nan"), "decay"),
    ((*B200, "radial", "--set", "decay"), "expected name=value"),
    ((*B200, "radial", "--set", "hw.chip.sm_count=-4"), "chip.sm_count"),
    ((*B200, "radial", "--grid", "30x48x80x2"), "one to three whole numbers"),
    ((*B200, "radial", "--grid", "0x48x80"), "at least 1"),
    ((*B200, "radial", "--kernel", "fa9"), "unknown kernel"),
    ((*B200, "radial", "--kernel", "fa3"), "does not run on b200_sxm"),
    ((*B200, "radial", "--kernel", "natten_blackwell"), "cannot run blocks masks"),
    ((*B200, "radial", "--dtype", "int3"), "expected one of bf16, fp16, fp8"),
    (("predict", "--hw", "a100", "--pattern", "radial", "--dtype", "fp8"), "no profiled kernel"),
    ((*B200, "radial", "--fidelity", "exact"), "known: bound, cycle, fast"),
    ((*B200, "radial", "--clock", "turbo"), "known: boost, burst, sustained"),
    ((*B200, "radial", "--model", "gpt5"), "unknown model"),
    ((*B200, "radial", "--shape", "huge"), "unknown shape"),
    ((*B200, "radial", "--head-dim", "512"), "head_dim 512"),
    ((*B200, "sliding_window", "--set", "window=0"), "window"),
    ((*B200, "causal", "--seq-q", "100", "--seq-kv", "50"), "at most seq_kv"),
    ((*B200, "causal", "--seq-q", "0"), "seq_q must be at least 1"),
    ((*B200, "causal", "--grid", "30x4", "--seq-q", "3"), "not both"),
    ((*B200, "documents", "--seq-q", "32768", "--set", "lengths=5,5"), "must add up"),
    ((*B200, "radial", "--q-tile", "16x16", "--kv-tile", "8"), "tiles of one number"),
    ((*B200, "radial", "--frames", "30"), "go together"),
    ((*B200, "gna", "--causal"), "causal by axis"),
    ((*B200, "radial", "--patern", "x"), "No such option"),
    (("predict", "--hw", "b200", "--mask", "garbage.npy", "--seq-q", "1024"), "not a numpy file"),
    (("predict", "--hw", "b200", "--mask", "missing.npz"), "cannot read mask file"),
    (("mask", "--pattern", "radial", "-o", "radial.gif"), "--output must end in"),
    (("mask", "--pattern", "causal", "--seq-q", "256", "-o", "nowhere/causal.npz"), "No such file or directory"),
    (("validate", "--page", "nowhere/page.md"), "no such folder"),
    ((*B200, "radial", "--set", "hw.chip.sm_count=3", "--set", "hw.chip.sm_count.x=1"), "set twice"),
    ((*B200, "causal", "--seq-q", "1099511627776"), "at most 268,435,456 tokens"),
    ((*B200, "dense", "--q-tile", "4096", "--kv-tile", "4096"), "KiB of shared memory"),
    (("hw", "show", "nothing"), "unknown GPU"),
    (("models", "show", "nothing"), "unknown model"),
    (("patterns", "show", "nothing"), "unknown pattern"),
    ((*B200, "radial", "--seq-q", "32768"), "radial needs frames"),
    ((*B200, "causal", "--q-heads", "1000000", "--kv-heads", "1000000"), "CTAs"),
    (("predict", "--hw", "b200", "--mask", "zero.npy", "--seq-q", "1024"), "keeps no block"),
    (("predict", "--hw", "b200", "--mask", "zero.npy"), "does not say how many tokens"),
    (("predict", "--hw", "b200", "--mask", "zero.npy", "--set", "file=other.npy"), "once"),
    (("validate", "--table", "broken.toml", "--page", "page.md"), "--class and --page are of the scoreboard"),
    (("validate", "--set", "gpu=h100"), "--set is of a --table"),
    (("validate", "--log", "log.jsonl"), "--log is of the scoreboard"),
    (("validate", "--class", "E"), "'E' is not one of"),
    (("validate", "--table", "broken.toml", "--html", "nowhere/x.html"), "no such folder"),
    (("validate", "--table", "broken.toml", "--set", "gpu"), "expected name=value"),
    (("calibrate", "--all", "--published", "x"), "give either --table, --published or --all"),
    (("calibrate", "--all"), "say where with --output"),
    (("calibrate", "--published", "h100_sxm"), "expected GPU/FRAMEWORK/VERSION"),
    (("kernels", "show", "nothing"), "unknown kernel"),
    (("validate", "--table", "missing.jsonl"), "cannot read"),
    (("validate", "--table", "broken.toml"), "line 1"),
    (("nonsense",), "No such command"),
]


@pytest.fixture(scope="module")
def broken_files(tmp_path_factory):
    folder = tmp_path_factory.mktemp("broken")
    for name, text in BROKEN.items():
        (folder / name).write_text(text)
    np.save(folder / "zero.npy", np.zeros((8, 8), bool))
    return folder


@pytest.mark.parametrize(("arguments", "words"), BAD, ids=[" ".join(a)[:70] for a, _ in BAD])
def test_bad_input_gives_one_line_and_exit_2(arguments, words, broken_files):
    done = run(*arguments, cwd=broken_files)
    assert done.returncode == 2, done.stderr
    assert done.stdout == ""
    assert len(done.stderr.splitlines()) == 1
    assert done.stderr.startswith("simattn: ")
    assert words in done.stderr


def test_own_runs_are_validated_row_by_row(tmp_path):
    shape = {"batch": 1, "q_heads": 8, "kv_heads": 8, "seq_q": 4096, "seq_kv": 4096, "head_dim": 128, "pattern": "sliding_window"}
    row = {
        "id": "mine",
        "table": "t",
        "gpu": "h100",
        "kernel": "fa3",
        "phase": "prefill",
        "dtype": "bf16",
        "latency_ms": 0.1,
        **shape,
    }
    lines = [{**row, "pattern_params": {"window": 512}}, row, {**row, "latency_ms": -3, "pattern_params": {"window": 512}}]
    path = tmp_path / "runs.jsonl"
    path.write_text("\n".join(json.dumps(line) for line in lines))
    done = run("validate", "--table", path)
    assert done.returncode == 0, done.stderr
    assert "mine" in done.stdout
    assert "1 of 3 runs: the source does not give the window" in done.stdout
    assert "1 of 3 runs: no measured time above zero" in done.stdout


def test_names_with_brackets_and_poor_terminals(tmp_path):
    own = tmp_path / "mine.toml"
    own.write_text('inherits = "h100_sxm"\nname = "mine"\ntitle = "mine [/b] [x]"\n')
    assert "mine [/b] [x]" in run("predict", "--hw", own, "--pattern", "causal").stdout
    assert run("predict", "--hw", "h100", "--pattern", "causal", PYTHONIOENCODING="ascii").returncode == 0


def test_changed_hardware_is_named_and_loses_its_source(tmp_path):
    done = run("predict", "--hw", "h100", "--pattern", "causal", "--set", "hw.chip.sm_count=160")
    assert "changed: hw.chip.sm_count=160" in done.stdout
    own = tmp_path / "mine.toml"
    own.write_text('inherits = "h100_sxm"\nname = "mine"\n[chip]\nsm_count = 160\n')
    kinds = {v["path"]: v["kind"] for v in answer("hw", "show", own)["values"]}
    assert (kinds["chip.sm_count"], kinds["chip.clock_max_mhz"]) == ("unsourced", "microbenchmark")
    assert "b300cat" in answer("hw", "show", "b200")["sources"]


def test_a_closed_pipe_is_no_error():
    done = subprocess.run(
        f"{sys.executable} -P -c 'from simattn.cli import main; main()' hw list --json | head -c 1",
        shell=True,
        capture_output=True,
        check=False,
    )
    assert done.stderr == b""


def test_piped_output_is_plain_text():
    assert "\x1b[" not in run("predict", "--hw", "h100", "--pattern", "causal").stdout


def test_version_and_help():
    assert run("--version").stdout.strip().endswith("0.1.0")
    assert run("--help").returncode == 0


def test_first_run_says_that_it_compiles(tmp_path):
    first = run("predict", "--hw", "b200", "--pattern", "causal", "--json", NUMBA_CACHE_DIR=str(tmp_path))
    second = run("predict", "--hw", "b200", "--pattern", "causal", "--json", NUMBA_CACHE_DIR=str(tmp_path))
    assert first.stderr.count("compiling") == 1
    assert second.stderr == ""
    assert first.stdout == second.stdout


@pytest.mark.parametrize("module", ["torch", "triton", "plotly", "matplotlib", "pandas", "networkx", "simpy"])
def test_predict_imports_nothing_heavy(module):
    script = (
        "import sys; from simattn.cli import simattn; "
        "simattn.main(['predict', '--hw', 'b200', '--pattern', 'radial', '--json'], standalone_mode=False); "
        f"sys.exit({module!r} in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, check=False).returncode == 0


def test_listing_gpus_imports_no_simulator():
    script = (
        "import sys; from simattn.cli import simattn; simattn.main(['hw', 'list'], standalone_mode=False); "
        "sys.exit('numba' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, check=False).returncode == 0


def test_stages_can_be_left_out():
    whole = answer("predict", "--hw", "b200", "--pattern", "radial")
    ideal = answer("predict", "--hw", "b200", "--pattern", "radial", "--without", "clock", "--without", "schedule")
    assert ideal["latency_ms"] < whole["latency_ms"]
    times = {stage["stage"]: stage["latency_ms"] for stage in ideal["waterfall"]}
    assert times["memory"] == times["schedule"] == times["clock"]


def test_a_warm_l2_is_never_slower():
    call = (
        "predict",
        "--hw",
        "h100",
        "--pattern",
        "sliding_window",
        "--set",
        "window=128",
        "--seq-q",
        "4096",
        "--q-heads",
        "4",
        "--kv-heads",
        "4",
    )
    assert answer(*call, "--warm")["latency_ms"] < answer(*call)["latency_ms"]


def test_the_loop_program_of_a_kernel():
    rows = answer("kernels", "loop", "fa4", "--hw", "b200")
    plain = next(row for row in rows if row["tile"] == "plain")
    assert plain["tensor"] == 2048
    assert plain["interval"] >= max(plain["res_mii"], plain["rec_mii"])
