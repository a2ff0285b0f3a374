"""Entries of the visual systems on their published workloads: densities, blocks, side kernels."""

from functools import cache

import pytest
from simattn.workloads import Attention, AttentionProblem, Gemm, Memory, Pattern, TokenLayout, models, schedule, systems
from simattn.workloads.layout import Tiling

FLAT = Tiling(q=(64,), kv=(64,))
BOXES = Tiling(q=(4, 4, 8), kv=(4, 4, 8))
SQUARE = Tiling(q=(16, 8), kv=(16, 8))

DENSITY = {
    # Live pairs over all pairs, as published (or as the method's own code gives it), and where.
    "adaspa": (0.2, "sparsity 0.8, arXiv 2502.21079"),
    "annsa": (0.278, "tables of the paper"),
    "blade": (0.2, "sparsity of about 0.8"),
    "draft": (0.1, "sparsity 90 %"),
    "llsa": (512 / 65536, "512 keys a query"),
    "psa": (0.1006, "preset psa_topk of Wan2.1-1.3B"),
    "re_ttention": (0.03125, "sparsity 96.9 %"),
    "sla": (0.05, "5 % critical"),
    "spargeattn": (0.5, "top-k 0.5"),
    "sta": (0.1661, "mean of the shipped table after the first 15 steps"),
    "svg": (0.25, "the scripts' setting"),
    "vmoba": (0.18, "ratio of the FLOP script"),
    "vsa": (0.1, "sparsity 0.9"),
    "freeswim": (0.2013, "window of the code"),
    "gna": (0.09, "91 % sparsity"),
    "blocked": (0.09, "91 % sparsity"),
    "cosmos_predict2": (0.1653, "mean of the layers of the 2B model"),
    "radial": (0.278, "72.2 % sparse, arXiv 2506.19852"),
    "scale_dit": (0.0298, "the method's own mask builder"),
}
BASELINES = ["blocked", "cosmos_predict2", "nabla", "sasa", "spargeattn", "sta", "svg", "svg2", "swin", "vsa"]
TIER_1 = [
    *("adaspa", "annsa", "axial", "biformer", "blade", "draft", "dsvt", "favit", "fna", "freeswim", "gna", "halonet", "llsa"),
    *("monarch_rt", "paro", "psa", "pt_dit", "radial", "re_ttention", "scale_dit", "sla", "sparse_vdit", "sparsifiner", "vmoba"),
]
VISUAL = [*BASELINES, *TIER_1]


@cache
def plan_of(name):
    """The plan of an entry on its published workload, under tiles of 64 (boxes where its kernels have boxes)."""
    pattern = Pattern(name, published=True)
    layout, problem = pattern.default_layout(), pattern.system.workload.problem()

    def tiling_of(mask_class, kernel):
        box = BOXES if len(layout.grid) == 3 else SQUARE
        return box if mask_class == "box" else FLAT

    return pattern.plan(problem, layout, tiling_of), problem, layout


def side(plan, name):
    return next(op for op in plan if op.name == name)


@pytest.mark.parametrize("name", VISUAL)
def test_published_workload_has_a_plan(name):
    plan, problem, layout = plan_of(name)
    attention = [op for op in plan if isinstance(op, Attention)]
    assert len(attention) >= 1 + len(systems.load(name).parts)
    assert all(op.schedule.pairs > 0 and op.schedule.visited > 0 for op in attention)
    # No kernel attends to more pairs than there are.
    assert all(op.schedule.pairs <= 1.0001 * problem.batch * problem.q_heads * layout.tokens**2 for op in attention)
    tokens = problem.batch * problem.q_heads * layout.tokens
    for op in plan:
        if isinstance(op, Memory):
            # Nothing beside the attention touches every token more than some tens of times; MonarchRT's results do.
            assert 0 < op.bytes < 64 * tokens * problem.head_dim * problem.element_bytes


@pytest.mark.parametrize("name", DENSITY)
def test_published_density(name):
    plan, problem, layout = plan_of(name)
    pairs = sum(op.schedule.pairs for op in plan if isinstance(op, Attention))
    density = pairs / problem.batch / problem.q_heads / layout.tokens**2
    assert density == pytest.approx(DENSITY[name][0], abs=0.015)
    if DENSITY[name][0] < 0.05:
        assert density == pytest.approx(DENSITY[name][0], rel=0.06)


@pytest.mark.parametrize(
    ("model", "shape", "params", "sparse"),
    [
        ("hunyuan-video", "768x1280x117", {"decay": 0.95}, 0.722),
        ("wan2.1-14b", "768x1280x69", {"decay": 0.2, "variant": "wan"}, 0.713),
        ("wan2.1-14b", "720x1280x161", {"decay": 1.0, "variant": "wan"}, 0.736),
        ("hunyuan-video", "720x1280x253", {"decay": 1.0}, 0.808),
        ("hunyuan-video", "720x1280x509", {"decay": 1.0}, 0.883),
    ],
)
def test_published_sparsity_of_radial(model, shape, params, sparse):
    """ArXiv 2506.19852: 161, 253 and 509 frames, and the default lengths; of blocks, text included."""
    layout = models.load(model).layout(shape)
    s = schedule("radial", grid=layout.grid, text=layout.text, **params)
    assert 1 - s.blocks.active / s.blocks.total == pytest.approx(sparse, abs=0.015)


def test_blocks_of_draft_attention(oracle):
    for case in oracle("visual_misc")["draft"]:
        text = 256 if case["text_blocks"] else 0
        share = case["kept_video_blocks_per_head"] / case["video_blocks"] ** 2
        s = schedule("draft", grid=(case["frames"], case["h"], case["w"]), text=text, density=round(share, 3))
        assert s.blocks.active == case["total_active_per_head"]
        assert round(s.blocks.active / s.blocks.total, 6) == case["density"]
    plan, problem, _ = plan_of("draft")
    assert (
        side(plan, "scores of means").flops == problem.q_heads * oracle("visual_misc")["draft"][0]["pooled_score_flops_per_head"]
    )


def test_cubes_of_vsa(oracle):
    for case in oracle("visual_misc")["vsa"]:
        cubes = case["n_tiles"]
        family = {"block": tuple(case["tile"]), "density": {624: 0.2}.get(cubes, 0.1)}
        s = schedule("vsa", grid=tuple(case["grid"]), q_tile=64, kv_tile=64, **family)
        size = case["tile"][0] * case["tile"][1] * case["tile"][2]
        assert s.blocks == (size, case["active_pairs"], cubes**2)
        assert case["active_pairs"] == case["topk"] * cubes
        assert round(s.blocks.active / s.blocks.total, 5) == case["density_tiles"]
        assert (s.seq_q, round(s.seq_q / case["real_tokens"], 3)) == (case["padded_tokens"], case["pad_overhead"])
        whole = [n // t for n, t in zip(case["grid"], case["tile"], strict=True)]
        assert whole[0] * whole[1] * whole[2] == case["full_tiles"]


def test_scores_of_llsa(oracle):
    """Scores of the two selecting levels: all of the last, and 128 children of each block of 16 queries."""
    for case in oracle("visual_misc")["llsa"][:3]:
        problem = AttentionProblem(q_heads=4, seq_q=case["N"], head_dim=64)
        plan = Pattern("llsa").plan(problem, TokenLayout(grid=(case["N"],)), lambda mask_class, kernel: FLAT)
        scores = sum(op.flops for op in plan if isinstance(op, Gemm)) / 2 / problem.head_dim / problem.q_heads
        assert scores == case["select_scores"]
        main = next(op for op in plan if isinstance(op, Attention))
        assert main.schedule.pairs / problem.q_heads / case["N"] == case["keys_per_query"]


def test_flops_of_monarch_rt(oracle):
    """Both stages and the product of R with the keys; what goes through memory between them."""
    case = oracle("visual_misc")["monarch"][1]
    plan, problem, layout = plan_of("monarch_rt")
    assert layout.grid == (case["f"], case["b1"], case["b2"])
    rows, columns = (op for op in plan if isinstance(op, Attention))
    product = side(plan, "product of R and the keys")
    heads, d = problem.q_heads, problem.head_dim
    assert (4 * rows.schedule.pairs * d + product.flops) / heads == case["flops_stage1"]
    assert 4 * columns.schedule.pairs * d / heads == case["flops_stage2"]
    assert product.bytes / heads == case["aux_bytes_aL_y"]
    assert rows.launches + columns.launches == 2 * case["a"]


def test_sta_runs_a_launch_for_each_head_and_text_apart():
    plan, _, _ = plan_of("sta")
    main, text = (op for op in plan if isinstance(op, Attention))
    assert (main.launches, main.kernel, main.schedule.copies) == (24, "sta_hopper", 24)
    assert (text.name, text.schedule.pairs) == ("text-all", 24 * 256 * 115456)
    assert side(plan, "copies of each head").launches == 4 * 24


def test_permutations_read_and_write_every_tensor_once():
    for name, before, after in (("svg", "placement", "placement of the output"), ("draft", "tokens into patches", "tokens back")):
        plan, problem, layout = plan_of(name)
        tensor = 2 * layout.tokens * problem.q_heads * problem.head_dim * 2
        assert (side(plan, before).bytes, side(plan, after).bytes) == (3 * tensor, tensor)


def test_a_search_is_shared_by_the_steps_between():
    plan, _, layout = plan_of("adaspa")
    search = side(plan, "pass of the search")
    assert (search.flops, search.every) == (4 * layout.tokens**2 * 128 * 24, 20)


@pytest.mark.parametrize("name", VISUAL)
def test_entries_say_what_they_do_not_know(name):
    system = systems.load(name)
    assert system.formula
    assert system.paper.startswith("arXiv")
    assert system.tier == (
        0 if name in ["sasa", "swin", "blocked", "sta", "svg", "svg2", "vsa", "nabla", "spargeattn", "cosmos_predict2"] else 1
    )
    drawn = {"imbalance", "head_spread", "q_spread"} & system.params.keys()
    if drawn - {"head_spread"} and name != "draft":
        assert system.exactness == "approximate"
