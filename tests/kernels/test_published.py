"""Loop programs against what is published of the kernels: ratios and cycles on one SM, nothing tuned for them.

Where a published figure is missed, the bounds say by how much.
"""

import msgspec
import numpy as np
import pytest
from simattn.hwspecs import gpus, load_labelled
from simattn.kernels import constants, kernels
from simattn.kernels.program import Template
from simattn.simulator import predict

FA3 = kernels.load("fa3")
SOFTMAX = ["mask", "max", "scale", "exp", "sum", "convert", "rescale"]


def replaced(struct, **tables):
    """A struct with other values in some of its tables."""
    return msgspec.structs.replace(struct, **{t: msgspec.structs.replace(getattr(struct, t), **v) for t, v in tables.items()})


# -- BLASST: the scores of every tile, the rest only where they matter -------------------------------------------------


@pytest.fixture(scope="module")
def blasst(one_sm):
    """Speedup of a CTA of 512 tiles on a B200, by the share of tiles of which only the scores are computed."""
    sm = one_sm(kernels.load("trtllm_gen"), "b200", "tcgen05", q_rows=256, kv_rows=128)
    chosen = np.random.default_rng(0).permutation(512)
    dense = sm.cta(["plain"] * 512)
    return lambda share: dense / sm.cta(np.where(chosen < share * 512, "qk_only", "plain"))


def test_scores_alone_saturate(blasst):
    """1.83 to 1.88 times at 98 to 99.6 % (TRT-LLM blog 16)."""
    assert blasst(0.9846) == pytest.approx(1.83, rel=0.03)
    assert blasst(0.9961) == pytest.approx(1.88, rel=0.03)
    assert blasst(1.0) - blasst(0.95) < 0.2


@pytest.mark.parametrize(
    ("share", "speedup"), [(0.3887, 1.25), (0.4915, 1.33), (0.6296, 1.43), (0.7526, 1.55), (0.8527, 1.66), (0.9416, 1.77)]
)
def test_scores_alone_at_some_tiles(blasst, share, speedup):
    """BF16 prefill of 64k tokens on B200, q64 kv4 d128 (TRT-LLM blog 16, draft): -5 to +1 % here."""
    assert blasst(share) == pytest.approx(speedup, rel=0.05)


def test_more_scores_alone_are_never_slower(blasst):
    speedups = [blasst(share) for share in np.linspace(0, 1, 11)]
    assert speedups[0] == 1
    assert speedups == sorted(speedups)


# -- FlashMLA: fp8 keys that the ALU converts --------------------------------------------------------------------------

FP8_TO_BF16 = 64 * (1 / 64 + 1 / 64 + 1 / 16 + 1 / 256)
"""ALU operations of one element: fp8 to half, to float, to bf16, times its scale, at 64, 64, 16 and 256 a clock.

FlashMLA docs/20250929-hopper-fp8-sparse-deep-dive.md."""


@pytest.fixture(scope="module")
def mla(one_sm):
    """FlashMLA's sparse decode on an H800: 64 heads, tiles of 64 tokens; alone, or in a pair that shares the conversion."""
    profile = replaced(FA3, softmax={"dequantize": FP8_TO_BF16})

    def make(template):
        return one_sm(profile, "h800", template, q_rows=64, kv_rows=64, d=576, d_v=512, mask_alu=0)

    return make("mla_fp8"), make("mla_fp8_pair")


def converted(sm):
    """ALU cycles of the conversion of a tile."""
    return sum(o.units["plain"]["alu"] for o in sm.program.ops if o.name in tuple("abcdefgh"))


def test_flashmla_cycles_of_a_token(mla):
    alone, pair = mla
    assert alone.program.unit_cycles("plain")["tensor"] / 64 == pair.program.unit_cycles("plain")["tensor"] / 64 == 34
    assert converted(alone) / 64 == pytest.approx(50)
    assert converted(pair) / 64 == pytest.approx(25)


def test_flashmla_is_bound_by_conversion_alone_and_by_products_in_a_pair(mla):
    alone, pair = mla
    before, after = (sm.program.unit_cycles("plain") for sm in mla)
    assert max(before, key=before.__getitem__) == "alu"
    assert after["tensor"] > after["alu"]
    assert alone.visit() / 64 > 50
    assert 34 < pair.visit() / 64 < alone.visit() / 64


def test_flashmla_faster_conversion(one_sm, mla):
    """A conversion a fifth cheaper: 14 % faster alone, 6 % in a pair, where it only stands in the way of the softmax."""
    profile = replaced(FA3, softmax={"dequantize": 0.8 * FP8_TO_BF16})
    alone, pair = (
        1 - one_sm(profile, "h800", name, q_rows=64, kv_rows=64, d=576, d_v=512, mask_alu=0).visit() / before.visit()
        for name, before in zip(("mla_fp8", "mla_fp8_pair"), mla, strict=True)
    )
    assert alone > 0.1
    assert 0 <= pair < alone / 2


def flashmla_tflops(kernel, top_k):
    """128 requests of two query tokens and 128 heads on an H800, each key of a token found in a list; the kernel alone."""
    shape = {"batch": 128, "q_heads": 128, "kv_heads": 1, "seq_q": 2, "seq_kv": 2**17, "head_dim": 576, "head_dim_v": 512}
    run = predict("dsa", "h800", kernel=kernel, phase="decode", dtype="fp8", params={"keys": top_k}, **shape).attention[0]
    return 2 * 128 * 2 * 128 * top_k * (576 + 512) / run.latency_ms / 1e9


def test_flashmla_gains_from_the_pair():
    """250 to 410 TFLOP/s, 1.64 times, both with 2048 keys a token; 1.59 here.

    The 460 that are also stated, 1.84 times 250, are of 32768 keys a token, 1.12 times 410: prologues and epilogues weigh less
    then, the same source says. 1.79 and 1.12 here. All three run 1.4 times faster here than they were measured.
    """
    alone, pair, long = (
        flashmla_tflops(kernel, top_k)
        for kernel, top_k in (("flashmla_sparse_alone", 2048), ("flashmla_sparse", 2048), ("flashmla_sparse", 32768))
    )
    assert pair / alone == pytest.approx(410 / 250, rel=0.05)
    assert long / pair == pytest.approx(460 / 410, rel=0.05)
    assert long / alone == pytest.approx(460 / 250, rel=0.05)


# -- FlashAttention-3: what its parts are worth ------------------------------------------------------------------------
#
# arXiv 2407.08608, on an H100 whose clock was fixed at 1830 MHz (appendix C.1), 128 x 176 tiles of head width 128:
#   table 2, 8448 tokens: 661 TFLOP/s; 582 without pipelining of products and softmax; 570 with it but without specialisation.
#   section 3.1, 8192 tokens: turns take it from 570 to 620-640. The authors' article adds: overlap within a warpgroup from there
#   to 640-660. Figure 5 has 646 for the whole at this length.
# So 570 is the kernel with neither, and 570 x 661 / 646 = 583: it is also the 582 of the table, which therefore lacks turns too.
# The code of neither ablated kernel was published.

LOCKED = load_labelled("h100-sxm-1830mhz")


def fa3_tflops(program, tokens):
    """FlashAttention-3 with a loop program, at 16 heads, and 33792 or 16384 tokens in all."""
    profile = msgspec.structs.replace(FA3, program=program)
    batch = {8448: 4, 8192: 2}[tokens]
    return predict("dense", LOCKED, kernel=profile, batch=batch, q_heads=16, seq_q=tokens, head_dim=128, dtype="fp16").tflops


@pytest.mark.parametrize(
    ("program", "tokens", "tflops"),
    [
        ("wgmma_pingpong", 8448, 661),
        pytest.param("wgmma_serial", 8448, 582, marks=pytest.mark.xfail(strict=True, reason="600 here: 3.2 % off")),
        ("wgmma_pingpong", 8192, 646),
        ("wgmma_serial", 8192, 570),
    ],
)
def test_with_all_overlap_and_with_none(program, tokens, tflops):
    """656 and 600, 627 and 574 TFLOP/s here, with the constants that were found on another table of this GPU."""
    assert fa3_tflops(program, tokens) == pytest.approx(tflops, rel=0.03)


def test_what_all_overlap_is_worth():
    """1.136 times at 8448 tokens and 1.133 at 8192; 1.092 and 1.093 here."""
    for tokens, published in ((8448, 661 / 582), (8192, 646 / 570)):
        assert fa3_tflops("wgmma_pingpong", tokens) / fa3_tflops("wgmma_serial", tokens) == pytest.approx(published, rel=0.04)


def variant(name, rows, *roles):
    return msgspec.convert(
        {"name": name, "title": name, "source": "arXiv 2407.08608, algorithms 1 and 2", "rows": rows, "roles": roles}, Template
    )


# A turn is PV of a tile, waited for, and QK of the next one.
TURNS_ALONE = variant(
    "turns alone",
    64,
    {
        "name": "load",
        "ops": [
            {"name": "k", "work": ["load_k"], "after": ["qk-stages"], "runs_on": True},
            {"name": "v", "work": ["load_v"], "after": ["pv-stages"], "runs_on": True},
        ],
    },
    {
        "name": "math",
        "copies": "roles",
        "ops": [
            {"name": "qk", "work": ["qk"], "after": ["k"], "turn": "qk", "runs_on": True},
            {"name": "softmax", "work": SOFTMAX, "after": ["qk"]},
            {"name": "pv", "work": ["pv"], "after": ["v"]},
        ],
    },
)
# All warps in step: they fetch for themselves, which ties them together, K as soon as QK of the tile two before is done. QK of
# the next tile and PV of this one are under way together, but the compiler overlaps PV with maxima at most (appendix B.2, and a
# loop of this form compiled with nvcc 13.0 for sm_90a): exponentials wait for it.
UNSPECIALISED = variant(
    "without specialisation",
    0,
    {
        "name": "warps",
        "ops": [
            {"name": "k", "work": ["load_k"], "ahead": 2, "after": ["qk-stages"], "runs_on": True},
            {"name": "v", "work": ["load_v"], "ahead": 1, "after": ["pv-stages"], "runs_on": True},
            {"name": "qk", "work": ["qk"], "ahead": 1, "after": ["k"], "runs_on": True, "leads": True},
            {"name": "pv", "work": ["pv"], "after": ["v"], "runs_on": True},
            {"name": "max", "work": ["mask", "max"], "ahead": 1, "after": ["qk"]},
            {"name": "exp", "work": SOFTMAX[2:], "ahead": 1, "after": ["pv-1"], "parallel": True},
        ],
    },
)


@pytest.fixture(scope="module")
def slower(one_sm):
    """How much longer a variant takes for a CTA of the 48 visits of 8448 keys than the whole."""
    profile = constants(FA3, gpus.load("h100")).profile
    whole, *variants = (
        one_sm(profile, "h100", template, q_rows=128, kv_rows=176) for template in ("wgmma_pingpong", TURNS_ALONE, UNSPECIALISED)
    )
    assert whole.visit() >= 2816
    return {sm.program.name: sm.cta(["plain"] * 48) / whole.cta(["plain"] * 48) for sm in variants}


def test_what_overlap_within_a_warpgroup_is_worth(slower):
    """620-640 to the 646 of the whole: 1.01 to 1.04. Nothing here: the other warpgroup's turn covers a whole softmax already."""
    assert slower["turns alone"] == pytest.approx(646 / 630, rel=0.03)


@pytest.mark.xfail(strict=True, reason="1.02 here for 1.16: what it costs the computing warps to fetch is not known")
def test_what_specialisation_is_worth(slower):
    """661 TFLOP/s with it, 570 without: less than the 582 of the kernel that has it and overlaps nothing else."""
    assert slower["without specialisation"] == pytest.approx(661 / 570, rel=0.05)


# -- B300: exponentials twice as fast, products as they were -----------------------------------------------------------


def test_faster_exponentials_help_more_where_heads_are_narrow(one_sm):
    """1.17 at head width 128, 1.21 at 64."""
    fa4 = kernels.load("fa4")
    gain = {}
    for d in (64, 128):
        b200, b300 = (one_sm(fa4, hw, "tcgen05", q_rows=256, kv_rows=128, d=d).visit() for hw in ("b200", "b300"))
        gain[d] = b200 / b300
    assert 1 < gain[128] < gain[64] <= 2


# -- Triton: a kernel whose compiled code was counted ------------------------------------------------------------------


@pytest.mark.parametrize(("hw", "fma_cycles", "counted", "measured"), [("a100", 2, 9368, 9364), ("h100", 1, 6276, 6552)])
def test_compiled_triton_kernel(one_sm, hw, fma_cycles, counted, measured):
    """128 x 64, 8 warps, 3 stages, d 128, a mask on every tile (reference/triton.md 3.3 and 3.4): +1.1 % and -4.2 %.

    Counted cycles of a 128 x 128 tile are those of the tensor, EX2, FMA and ALU pipes; the ALU has what the others leave.
    """
    spec, triton = gpus.load(hw), kernels.load("triton")
    iterations, warps = 2, 8
    a_warp = 128 * 64 / warps / 32
    instructions = {"ex2": 34, "fmul": 66, "ffma": 34, "fadd": 36}
    a_scheduler = iterations * warps / spec.sm.schedulers
    others = 4 * 128 * 128 * 128 / spec.tensor.bf16_f32
    others += a_scheduler * (8 * instructions["ex2"] + fma_cycles * sum(n for name, n in instructions.items() if name != "ex2"))
    alu = (counted - others) * spec.units.alu_lanes / 128**2
    assert alu == pytest.approx({"a100": 12.09, "h100": 10.14}[hw], abs=0.01)
    softmax = {
        "max": 1.0,
        "convert": 0.5,
        "scale": (instructions["ffma"] + instructions["fmul"] - 128 * 128 / warps / 32) / a_warp,
        "sum": instructions["fadd"] / a_warp,
        "rescale": 1.0,
    }
    profile = replaced(triton, softmax=softmax, timing={"iteration_cycles": {}})
    # The two exponentials that rescaling takes are no exponentials of scores: a slower unit stands for them.
    exact = replaced(spec, units={"ex2": spec.units.ex2 * a_warp / instructions["ex2"]})
    sm = one_sm(profile, exact, "triton_serial", q_rows=128, kv_rows=64, stages=3, warps=warps, mask_alu=alu - 1.5)
    units = sm.program.unit_cycles("masked")
    assert iterations * sum(units[u] for u in ("tensor", "ex2", "fma", "alu")) == pytest.approx(counted)
    assert iterations * sm.visit("masked") == pytest.approx(measured, rel=0.05)
    assert sm.visit("masked") > 1.2 * sm.visit("plain")
