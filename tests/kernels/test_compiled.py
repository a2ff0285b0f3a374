"""Kernels compiled without a GPU, and held against what can be worked out by hand."""

import json
import os
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest
from simattn.hwspecs import gpus
from simattn.kernels import build, kernels
from simattn.kernels.compiled import SERIAL, Compiled, architecture, compile_kernel, occupancy, serial
from simattn.kernels.compiled_profile import profile_of
from simattn.kernels.counts import read, shipped, write
from simattn.kernels.source import Build

from simattn import UserError

DATA = Path(__file__).parent / "data"
SIMATTN = [sys.executable, "-P", "-c", "from simattn.cli import main; main()"]


@pytest.fixture(scope="session")
def cache(tmp_path_factory):
    """Triton's cache for all tests of this file; never in the repository."""
    return tmp_path_factory.mktemp("triton")


@pytest.fixture
def compile_(cache, monkeypatch):
    """Compile one of the two kernels of the data folder."""
    pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(cache))

    def plain(arch, m=128, n=64, d=128, **changes):
        constants = {"BLOCK_M": m, "BLOCK_N": n, "HEAD_DIM": d}
        return compile_kernel(_build("plain_fmha", ("i32",) * 5 + ("fp32",), constants, changes), arch)

    def causal(arch, m=128, n=32, d=64, **changes):
        return compile_kernel(_build("causal_attention", ("i32", "fp32"), {"BM": m, "BN": n, "D": d}, changes), arch)

    return {"plain": plain, "causal": causal}


def _build(name, scalars, constants, changes):
    fields = {"warps": 8, "stages": 2, "signature": ("*bf16",) * 4 + scalars, "constexprs": constants, **changes}
    return Build(kernel=name, file=str(DATA / f"{name}.py"), **fields)


# A warp of eight has 16 of 128 rows: tensor instructions from the shapes, exponentials one a score and one for each of the two
# rows that a thread has a part of (with tcgen05: one), conversions one for two scores, loads of K and V at 16 bytes a thread.
HAND = {
    "a100": {
        "HMMA": 128,
        "LDSM": 72,
        "FMUL": 66,
        "FFMA": 34,
        "FADD": 36,
        "FMNMX": 36,
        "MUFU": 34,
        "F2FP": 16,
        "SHFL": 8,
        "LDGSTS": 8,
    },
    "h100": {"HGMMA": 12, "FMUL": 66, "FFMA": 34, "FADD": 36, "FMNMX": 36, "MUFU": 34, "F2FP": 16, "SHFL": 8, "LDGSTS": 8},
    "b200": {"UTCHMMA": 12 / 8, "FMUL": 65, "FFMA": 33, "MUFU": 33, "F2FP": 16, "SHFL": 2, "LDGSTS": 8},
}


@pytest.mark.parametrize("gpu", HAND)
def test_counts_by_hand(compile_, gpu):
    compiled = compile_["plain"](gpu, stages=3 if gpu == "a100" else 2)
    (loop,) = compiled.loops
    of_warp = {}
    for opcode, number in loop.instructions.items():
        base = opcode.partition(".")[0]
        of_warp[base] = of_warp.get(base, 0) + number / loop.warps
    exact = ("HMMA", "HGMMA", "UTCHMMA", "MUFU", "LDGSTS")
    for base, wanted in HAND[gpu].items():
        # Another version of Triton may compile softmax otherwise; the work that has no choice stays.
        tolerance = 0 if base in exact or compiled.triton.startswith("3.9.") else 0.15
        assert of_warp[base] == pytest.approx(wanted, rel=tolerance), base


@pytest.mark.parametrize(
    ("gpu", "m", "n", "d"),
    [("sm_80", 64, 64, 64), ("rtx_4090", 128, 64, 64), ("h100", 64, 128, 64), ("h100", 128, 128, 128), ("rtx_5090", 64, 32, 128)],
)
def test_tensor_cycles_are_those_of_the_tile(compile_, gpu, m, n, d):
    warps = 4 if m == 64 else 8
    compiled = compile_["plain"](gpu, m, n, d, warps=warps)
    spec = gpus.load(compiled.gpu)
    assert compiled.tensor_check == 1
    assert compiled.cycles["tensor"] == pytest.approx(4 * m * n * d / spec.tensor.bf16_f32)
    assert compiled.threads == 32 * warps
    assert compiled.cycles["ex2"] >= m * n / spec.units.ex2


def test_half_of_the_tensor_core_is_idle_with_64_rows(compile_):
    compiled = compile_["plain"]("b200", 64, 64, 64, warps=4)
    assert compiled.tensor_check == 1
    assert compiled.cycles["tensor"] == 4 * 128 * 64 * 64 / 8192


def test_a_published_tile(compile_):
    # Read from SASS by an independent script: 5248 cycles of shared memory for 128 x 128, and about 7160 in series.
    compiled = compile_["plain"]("a100", stages=3)
    assert 2 * max(compiled.cycles.values()) == pytest.approx(5248, rel=0.02)
    assert 2 * compiled.serial_cycles == pytest.approx(7160, rel=0.03)
    assert compiled.serial_cycles == pytest.approx(sum(compiled.cycles[unit] for unit in SERIAL))
    assert (compiled.spills, compiled.shared_bytes, compiled.ctas_per_sm) == (0, 6 * 64 * 128 * 2, 1)


def test_a_user_s_kernel_in_another_style(compile_):
    compiled = compile_["causal"]("sm_90")
    assert (compiled.config.block_m, compiled.config.block_n, compiled.config.head_dim) == (128, 32, 64)
    full, masked = compiled.loops
    scores_of_a_thread = 128 * 32 / 256
    more = sum(masked.instructions.get(op, 0) for op in ("FSEL",)) - full.instructions.get("FSEL", 0)
    assert more / 8 == scores_of_a_thread
    profile = profile_of(compiled)
    assert 1 <= profile.mask.alu[0] <= 8
    # Natural exponentials cost a multiplication more than exp2.
    assert profile.softmax.scale > 2


@pytest.mark.parametrize("gpu", ["a100", "h100", "b200"])
def test_the_profile_costs_what_was_counted(compile_, gpu):
    compiled = compile_["plain"](gpu, stages=3 if gpu == "a100" else 2)
    spec, profile = gpus.load(compiled.gpu), profile_of(compiled)
    (tile,) = profile.tiles
    assert profile.ctas_per_sm(spec, tile, 128, 128, 2) == compiled.ctas_per_sm
    program = build(
        profile,
        spec,
        q_rows=128,
        kv_rows=64,
        head_dim=128,
        head_dim_v=128,
        element_bytes=2,
        stages=tile.stages,
        warps=tile.threads // 32,
        tensor_rate=spec.tensor_flops_per_clk("bf16"),
        mask_alu=profile.mask.operations(1),
    )
    charged = program.unit_cycles("plain")
    for unit in ("tensor", "fma", "alu", "tmem"):
        assert charged[unit] == pytest.approx(compiled.cycles.get(unit, 0.0), rel=1e-3, abs=1e-6), unit
    # The program has no exponentials of rows.
    assert serial(charged) == pytest.approx(compiled.serial_cycles, rel=0.02)
    assert {p.kind for p in profile.meta.values()} <= {"code", "derived", "recalled"}


def test_warps_with_roles(compile_):
    tile = "tensordesc<bf16[128, 128]>"
    build_ = Build(
        kernel="specialised_fmha",
        file=str(DATA / "specialised_fmha.py"),
        signature=(tile,) * 4 + ("i32", "fp32"),
        constexprs={"BLOCK_M": 128, "BLOCK_N": 128, "HEAD_DIM": 128},
        warps=8,
        stages=2,
    )
    compiled = compile_kernel(build_, "sm_100")
    if not compiled.specialised:
        pytest.skip(f"Triton {compiled.triton} leaves this loop to one role")
    roles = {loop.role: loop for loop in compiled.loops}
    assert set(roles) == {"softmax", "rescale", "mma", "load"}
    assert (roles["softmax"].warps, roles["mma"].warps) == (8, 1)
    assert roles["mma"].instructions["UTCHMMA.128x128x16"] == 16
    assert compiled.tensor_check == 1
    assert compiled.threads > 32 * 8
    assert profile_of(compiled).program == "tcgen05_single"
    # One role does it all where the architecture has no such compiler pass.
    assert not compile_kernel(build_, "sm_90").specialised


def test_a_profile_without_room_on_an_sm(compile_):
    compiled = compile_["plain"]("rtx_4090", 128, 128, 128, stages=3)
    assert compiled.ctas_per_sm == 0
    with pytest.raises(UserError, match="does not fit on rtx_4090"):
        profile_of(compiled)


def test_occupancy_by_each_limit():
    a100, b200 = gpus.load("a100"), gpus.load("b200")
    assert occupancy(a100, 32, 4, 0) == 16  # threads
    assert occupancy(a100, 255, 4, 0) == 2  # registers: a warp gets 8192
    assert occupancy(a100, 64, 4, 48 * 1024) == 3  # shared memory, 1 KiB of it the system's
    assert occupancy(b200, 64, 4, 0, tmem_columns=256) == 2
    assert occupancy(b200, 64, 4, 0, tmem_columns=512) == 1
    assert occupancy(a100, 64, 4, 164 * 1024) == 0
    assert occupancy(a100, 16, 1, 0) == a100.sm.max_ctas


def test_architectures():
    assert architecture("sm_100") == architecture("SM100") == architecture("100a") == ("sm100", "b200_sxm")
    assert architecture("l40s") == ("sm89", "l40s")
    with pytest.raises(UserError, match=r"no architecture 'sm_70'.*sm_80"):
        architecture("sm_70")
    with pytest.raises(UserError, match="did you mean 'h100'"):
        architecture("h1000")
    with pytest.raises(UserError, match="nothing can be compiled for mi300x"):
        architecture("mi300x")


def test_shipped_counts():
    rows = shipped()
    if not rows:
        pytest.skip("no counts ship yet")
    assert {"sm80", "sm90", "sm100"} <= {row.arch for row in rows}
    keys = [(r.triton, r.arch, r.kernel, r.config) for r in rows]
    assert len(set(keys)) == len(keys)
    for row in rows:
        assert row.tensor_check == pytest.approx(1, abs=0.01), (row.kernel, row.arch)
        assert row.ctas_per_sm >= 1
        profile_of(row)


def test_counts_as_a_file(compile_, tmp_path):
    rows = [compile_["plain"]("sm_90"), compile_["plain"]("sm_80", stages=3)]
    write(tmp_path / "counts.json", rows)
    back = read(tmp_path / "counts.json")
    assert [row.arch for row in back] == ["sm80", "sm90"]
    assert back[1] == rows[0]
    (tmp_path / "bad.json").write_text("[{}]")
    with pytest.raises(UserError, match="not a file of counts"):
        read(tmp_path / "bad.json")


BAD = {
    "constant": ({"constexprs": {"BLOCK_M": 128, "BLOCK_N": 64}}, "needs a value of HEAD_DIM"),
    "misspelt": ({"constexprs": {"BLOCK_M": 128, "BLOCK_N": 64, "HEAD_DIN": 128}}, "did you mean 'HEAD_DIM'"),
    "signature": ({"signature": ("*bf16",) * 4}, "10 arguments that are no constants"),
    "type": ({"signature": ("*bf16",) * 4 + ("int",) * 5 + ("fp32",)}, "'int' of q_row is not a type"),
    "warps": ({"warps": 3}, "power of two"),
    "name": ({"block_n": "BLOCK_K"}, "unknown constant for --block-n"),
    "source": ({"constexprs": {"BLOCK_M": 128, "BLOCK_N": 48, "HEAD_DIM": 128}}, "cannot compile plain_fmha for sm_90"),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_builds(compile_, case):
    changes, message = BAD[case]
    constants = changes.get("constexprs", {"BLOCK_M": 128, "BLOCK_N": 64, "HEAD_DIM": 128})
    with pytest.raises(UserError, match=message):
        compile_kernel(_build("plain_fmha", ("i32",) * 5 + ("fp32",), constants, changes), "sm_90")


def test_a_tile_that_is_not_the_kernel_s(compile_):
    with pytest.raises(UserError, match=r"1.33 times the tensor work.*--block-m"):
        compile_["plain"]("sm_90", block_n=48)


def run(*arguments, cwd=None, **environment):
    environment = {name: value for name, value in {**os.environ, **environment}.items() if value is not None}
    return subprocess.run([*SIMATTN, *map(str, arguments)], capture_output=True, text=True, cwd=cwd, env=environment, check=False)


SIGNATURE = "*bf16,*bf16,*bf16,*bf16,i32,i32,i32,i32,i32,fp32"
CONSTANTS = ("--constexpr", "BLOCK_M=128", "--constexpr", "BLOCK_N=64", "--constexpr", "HEAD_DIM=128")
OWN = ("--signature", SIGNATURE, *CONSTANTS, "--warps", 8)
FILE = f"{DATA / 'plain_fmha.py'}:plain_fmha"


def test_the_command(compile_, cache):
    done = run("kernels", "compile", "--file", FILE, "--arch", "sm_80,h200", *OWN, "--json", TRITON_CACHE_DIR=str(cache))
    assert done.returncode == 0, done.stderr
    rows = json.loads(done.stdout)
    assert [(r["kernel"], r["arch"], r["gpu"]) for r in rows] == [
        ("plain_fmha", "sm80", "a100_sxm_80gb"),
        ("plain_fmha", "sm90", "h200_sxm"),
    ]
    wanted = {"kernel", "arch", "config", "registers", "spills", "shared_bytes", "ctas_per_sm", "loop"}
    assert all(wanted <= row.keys() for row in rows)
    assert rows[0]["loop"]["tensor"] == 1024
    assert msgspec.convert(rows[0], Compiled) == compile_["plain"]("sm_80")
    assert "compiling plain_fmha for h200 (2 of 2)" in done.stderr


def test_the_command_for_people_where_the_interpreter_is_on(compile_, cache):
    done = run("kernels", "compile", "--file", FILE, "--arch", "sm_80", *OWN, TRITON_CACHE_DIR=str(cache), TRITON_INTERPRET="1")
    assert done.returncode == 0, done.stderr
    for words in ("plain_fmha", "sm_80", "128x64x128", "registers", "CTAs", "2,048"):
        assert words in done.stdout


def test_a_kernel_of_one_s_own_is_predicted(compile_, cache):
    call = ("predict", "--hw", "h100", "--pattern", "dense", "--seq-q", 8192, "--q-heads", 8, "--head-dim", 128, "--json")
    done = run(*call, "--kernel-file", FILE, *OWN, TRITON_CACHE_DIR=str(cache))
    assert done.returncode == 0, done.stderr
    own = json.loads(done.stdout)
    assert own["kernel"] == "plain_fmha.py:plain_fmha"
    assert (own["q_tile"], own["kv_tile"]) == ([128], [64])
    triton = json.loads(run(*call, "--kernel", "triton").stdout)
    assert own["latency_ms"] == pytest.approx(triton["latency_ms"], rel=0.5)
    explained = run("explain", *call[1:], "--kernel-file", FILE, *OWN, TRITON_CACHE_DIR=str(cache))
    assert explained.returncode == 0, explained.stderr
    assert own["kernel"] in explained.stdout
    slower = run(*call, "--kernel-file", FILE, *OWN, "--set", "kernel.softmax.scale=30", TRITON_CACHE_DIR=str(cache))
    assert json.loads(slower.stdout)["latency_ms"] > own["latency_ms"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--kernel-file", FILE, *OWN, "--kernel", "fa3"), "either --kernel or --kernel-file"),
        (("--warps", 8, *CONSTANTS), "say how a --kernel-file is built"),
        (("--kernel-file", FILE, *OWN, "--hw", "mi300x"), "nothing can be compiled for mi300x"),
        (("--kernel-file", FILE, *OWN, "--head-dim", 192), "built with HEAD_DIM=128, and --head-dim is 192"),
    ],
)
def test_bad_kernel_files(arguments, message, compile_, cache):
    done = run("predict", "--hw", "h100", "--pattern", "dense", "--seq-q", 2048, *arguments, TRITON_CACHE_DIR=str(cache))
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--file", FILE, "--arch", "sm_75", *OWN), "no architecture 'sm_75' to compile for"),
        (("--file", FILE, "--arch", ""), "--arch is empty"),
        (("--file", "nothing.py:f", *OWN), "no such file: nothing.py"),
        (("--file", "nothing.py", *OWN), "expected FILE:FUNCTION"),
        (("--file", f"{DATA / 'plain_fmha.py'}:plain_fhma", *OWN, "--arch", "sm_90"), "did you mean 'plain_fmha'"),
        (("--file", FILE), "needs --signature"),
        (("--file", FILE, *OWN, "--constexpr", "BLOCK_M"), "expected NAME=VALUE"),
        (("--file", FILE, "dense", *OWN), "either names of bundled kernels or --file"),
        (("--head-dim", "wide"), "expected numbers such as 64,128"),
        (("densed",), "did you mean 'dense'"),
        (("--write", "nowhere/counts.json"), "no such folder"),
        (("--shipped", "--arch", "sm_86", "no_such_kernel"), "unknown kernel with shipped counts"),
    ],
)
def test_bad_input(arguments, message, compile_, cache):
    done = run("kernels", "compile", *arguments, TRITON_CACHE_DIR=str(cache))
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr.splitlines()[-1]
    assert "Traceback" not in done.stderr


def test_without_triton(tmp_path):
    (tmp_path / "triton.py").write_text("raise ImportError('not here')")
    for arguments in (("kernels", "compile", "--file", FILE, *OWN), ("kernels", "compile", "dense")):
        done = run(*arguments, PYTHONPATH=str(tmp_path))
        assert (done.returncode, done.stdout) == (2, "")
        assert "pip install 'simattn[kernels]'" in done.stderr.splitlines()[-1]


def test_predict_starts_without_compilers():
    code = (
        "import sys; from simattn.cli import main\n"
        "import simattn.cli, simattn.kernels\n"
        "print([m for m in ('torch', 'triton', 'networkx') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


def test_lent_profiles_are_found_by_name():
    profile = msgspec.structs.replace(kernels.load("triton"), name="mine.py:mine")
    kernels.lend(profile.name, profile)
    assert kernels.load("mine.py:mine") is profile
    assert kernels.load("mine.py:mine", {"softmax": {"scale": 3.0}}).softmax.scale == 3
    assert "mine.py:mine" not in kernels.names()


# -- what ships --------------------------------------------------------------------------------------------------------

TENSOR = {"sm80": "HMMA", "sm89": "HMMA", "sm90": "HGMMA", "sm100": "UTCHMMA", "sm120": "HMMA"}
"""Tensor instruction that the loop of a kernel has to be made of, by architecture."""


@pytest.mark.parametrize("row", shipped(), ids=lambda r: f"{r.kernel}-{r.arch}-{r.config.head_dim}-{r.config.block_n}")
def test_bundled_kernels_neither_spill_nor_load_by_halves(row):
    assert row.spills == 0
    for loop in row.loops:
        used = [op for op in loop.instructions if "MMA" in op]
        assert used
        assert all(op.startswith(TENSOR[row.arch]) for op in used)
        # K and V arrive by TMA, or 16 bytes a thread; the lists of a block-sparse kernel are words.
        if row.arch in ("sm90", "sm100"):
            assert any(op.startswith("UTMALDG") for op in loop.instructions)
        else:
            assert any(op.startswith("LDGSTS.E") and op.endswith(".128") for op in loop.instructions)
        assert not any(op.startswith("LDG.E.U16") for op in loop.instructions)


def test_every_bundled_kernel_has_counts_for_every_architecture():
    found = {(row.kernel, row.arch, row.config.head_dim) for row in shipped()}
    names = {kernel for kernel, _, _ in found}
    assert {"dense", "causal", "sparse_span", "sparse_bits", "neighborhood"} <= names
    assert found == {(kernel, arch, d) for kernel in names for arch in TENSOR for d in (64, 128)}


def test_shipped_counts_are_those_of_the_shipped_kernels(cache, monkeypatch):
    """A change of a kernel that reaches its instructions needs new counts: `simattn kernels compile --write`."""
    triton = pytest.importorskip("triton")
    monkeypatch.setenv("TRITON_CACHE_DIR", str(cache))
    rows = [r for r in shipped() if (r.kernel, r.arch, r.config.head_dim) == ("causal", "sm90", 128)]
    if rows[0].triton != triton.__version__:
        pytest.skip(f"counts are of Triton {rows[0].triton}")
    assert compile_kernel(Build(kernel="causal", head_dim=128), "sm_90").sass == rows[0].sass


# -- kernels that are written otherwise --------------------------------------------------------------------------------


def test_exponentials_are_those_of_the_code(compile_):
    """One a score, and those of the rows: 34 for 32 in each thread."""
    compiled = compile_["plain"]("a100", stages=3)
    assert profile_of(compiled).softmax.exp == pytest.approx(34 / 32, abs=1e-6)


def test_a_head_width_that_the_code_has_not_is_refused(compile_):
    with pytest.raises(UserError, match="built with HEAD_DIM=128, and --head-dim is 64"):
        compile_["plain"]("sm_90", head_dim=64)


def test_a_loop_with_half_of_the_products_of_a_tile_is_refused(compile_):
    with pytest.raises(UserError, match=r"0\.5 times the tensor work"):
        compile_["plain"]("sm_90", block_n=128)


def test_functions_below_autotune_are_found(tmp_path, compile_):
    plain = (DATA / "plain_fmha.py").read_text()
    tuned = plain.replace("@triton.jit", '@triton.autotune([triton.Config({}, num_warps=4)], key=["seq_len"])\n@triton.jit')
    (tmp_path / "tuned.py").write_text(tuned)
    build = msgspec.structs.replace(
        _build("plain_fmha", ("i32",) * 5 + ("fp32",), {"BLOCK_M": 128, "BLOCK_N": 64, "HEAD_DIM": 128}, {}),
        file=str(tmp_path / "tuned.py"),
    )
    assert compile_kernel(build, "sm_90").sass == compile_["plain"]("sm_90").sass
