"""Entries of the prefill systems: published counts and densities are met, and every entry is a plan on its own workload."""

import pytest
from simattn.workloads import Attention, Pattern, Tiling, TokenLayout, systems

TILES = Tiling(q=(64,), kv=(64,))
NAMES = (
    "anchor", "bigbird", "blasst", "combiner", "dhsa", "duoattention", "flexprefill", "hip", "logsparse", "longformer",
    "minference", "mminference", "moa", "pbs", "power", "s2", "sale", "seer", "sparse_frontier", "sparse_transformer",
    "sparse_transformer_strided", "sparsed", "xattention", "zipvl",
)  # fmt: skip


def of_causal(name, tokens, **params):
    """Share of the causal blocks that an entry keeps, over 8 heads."""
    pattern = Pattern(name, params)
    s = pattern.family.schedule_heads(TokenLayout(grid=(tokens,)), TILES, 8)
    rows = tokens // s.blocks.size
    return s.blocks.active / (rows * (rows + 1) / 2)


@pytest.mark.parametrize(("name", "tokens", "params", "density"), [
    # SeerAttention's benchmark sets the sparsity; 1.5 points are what the dense last row may add.
    ("seer", 8192, {"density": 0.5}, 0.5),
    ("seer", 32768, {"density": 0.3}, 0.3),
    ("seer", 131072, {"density": 0.1}, 0.1),
    # XAttention at stride 8, the ends of its table.
    ("xattention", 4096, {}, 0.5173),
    ("xattention", 131072, {}, 0.0689),
    # DKernel as Phi-3-small has it: patterns_llm.md 2.4, from the method's code.
    ("s2", 8192, {}, 0.329),
    ("power", 32768, {}, 0.1382),
    ("blasst", 65536, {"block": 128}, 0.2474),
])  # fmt: skip
def test_published_densities_are_met(name, tokens, params, density):
    assert of_causal(name, tokens, **params) == pytest.approx(density, abs=0.015)


@pytest.mark.parametrize(("tokens", "span"), [(4096, 1984.5), (8192, 4029.0), (16384, 8102.0)])
def test_moa_spans_have_the_published_mean(tokens, span):
    """Mean span of the heads of Llama-3-8B-Instruct-262k: half of the sequence, searched so."""
    s = Pattern("moa").family.schedule_heads(TokenLayout(grid=(tokens,)), TILES, 1024)
    last = [int(s.counts.visited[g.first_row + g.rows - 1]) * 64 * g.copies for g in s.groups]
    assert sum(last) / 1024 == pytest.approx(span, abs=0.015 * tokens)


def test_power_attention_has_about_ten_blocks_at_32k():
    s = Pattern("power").schedule(TokenLayout(grid=(32768,)), Tiling(q=(256,), kv=(256,)))
    assert s.counts.visited[-1] == 10


def test_sparsed_keeps_a_whole_number_and_one_more():
    s = Pattern("sparsed").schedule(TokenLayout(grid=(65536,)), Tiling(q=(128,), kv=(128,)))
    assert (s.counts.visited == int(512 * 0.3) + 1).all()


def test_dhsa_keeps_an_eighth_of_all_key_blocks():
    s = Pattern("dhsa").schedule(TokenLayout(grid=(32768,)), Tiling(q=(128,), kv=(32,)))
    assert (s.counts.visited[32:-1] == 128).all()
    assert s.counts.visited[-1] == 1024


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_is_a_plan_on_its_own_workload(name):
    pattern = Pattern(name, published=True)
    workload = pattern.system.workload
    problem, layout = workload.problem(), workload.layout()
    plan = pattern.plan(problem, layout, lambda mask_class, kernel: TILES)
    main = next(op for op in plan if isinstance(op, Attention))
    assert main.schedule.visited > 0
    dense = pattern.family.without_pattern().schedule(layout, TILES)
    assert main.schedule.pairs < dense.pairs * problem.q_heads * problem.batch
    assert {op.name for op in plan} >= {side.name for side in pattern.system.side}


@pytest.mark.parametrize("name", NAMES)
def test_an_entry_says_what_is_known(name):
    system = systems.load(name)
    assert system.paper.startswith("arXiv") or name == "longformer"
    assert "rule" in system.meta
    if system.side:
        assert "side" in system.meta
