"""Known block masks of the prefill systems (tests/oracles/llm_*.json), block for block.

`llm_official` was made by the systems' own code, `llm_oracles` by a reading of it. Where a rule was not written down, it was
found from the listed blocks, so that these cases are no evidence for it: that SeerAttention keeps the diagonal, that
FlexPrefill's first column and diagonal are part of its budgets, that DHSA's lines are chosen as blocks, and that the last block
before a group is none of AnchorAttention's stripes.

Cases not passed:
`sparse_transformer_strided`, `sparse_transformer_fixed`, `dilated_window_tokens_as_tiles`: their pairs, which count single tokens
    inside tiles; the kernels compute blocks, and so do the families. `dilated` in MInference's form is in test_vertical_slash.
"""

import json
from pathlib import Path

import numpy as np
import pytest
from simattn.workloads import Tiling, TokenLayout
from simattn.workloads.estimators import lines, rules
from simattn.workloads.estimators.search import search_by_halves
from simattn.workloads.families import Band, Elastic, Strided

CASES = {
    source: json.loads((Path(__file__).parent.parent / "oracles" / f"{source}.json").read_text(encoding="utf-8"))
    for source in ("llm_oracles", "llm_official")
}


def qk(seed, heads, tokens, width, scale=3.0):
    """White noise."""
    rng = np.random.default_rng(seed)
    q = scale * rng.standard_normal((heads, tokens, width))
    return q, rng.standard_normal((heads, tokens, width))


def qks(seed, tokens, width, block, scale=1.0):
    """Blocks with topics: keys of a block share one, queries look for their own, the first and a random earlier one."""
    rng = np.random.default_rng(seed)
    topic = rng.standard_normal((tokens // block, width))
    past = [int(rng.integers(0, i + 1)) for i in range(len(topic))]
    k = np.repeat(topic, block, 0) + 0.5 * rng.standard_normal((tokens, width))
    wanted = np.repeat(0.5 * topic + 0.5 * topic[0] + 0.8 * topic[past], block, 0)
    q = scale * (wanted + 0.5 * rng.standard_normal((tokens, width)))
    return q[None], k[None]


def blocks_of(case):
    """The blocks that a case lists: bool [heads or 1, rows, columns]."""
    shape = case["shape"] if len(case["shape"]) == 3 else [1, *case["shape"]]
    mask = np.zeros(shape, bool)
    for head, listed in enumerate(case["active"] if len(case["shape"]) == 3 else [case["active"]]):
        row, column = np.array(listed).T
        mask[head, row, column] = True
    return mask


STATIC = {
    "dense": Band(),
    "causal": Band(causal=True),
    "sliding_window_causal": Band(window=128),
    "sliding_window_bidir_fa": Band(window=(64, 64)),
    "streaming_llm": Band(window=128, sinks=64),
    "longformer": Band(window=(64, 64), global_tokens=16),
    "dilated_window_tokens_as_tiles": Band(window=256),
    "sparse_transformer_strided": Strided(local=3, diagonals=2),
    "sparse_transformer_fixed": Strided(span=2, stride=2, phase=1),
    "bigbird": Strided(causal=False, local=2, sinks=2, global_rows=2, random=3),
    "power_attention": Strided(local=2, sinks=1, powers=True),
    "s2_local_stride": Strided(local=2, stride=4, head_step=1),
    "moa_elastic": Elastic(spans=((1, 0, 0.125), (1, 0, 0.5), (1, 1024, 0.0), (1, -1024, 1.0))),
    "dkernel_local_stride": Strided(local=2, stride=4, head_step=1),
    "openai_sparse_local": Strided(block=32, local=5),
    "openai_sparse_strided": Strided(block=32, span=4),
    "openai_sparse_fixed": Strided(block=32, span=4, stride=4, phase=1, head_step=1),
}


@pytest.mark.parametrize("name", STATIC)
def test_static_patterns(oracle, name):
    case = {**oracle("llm_oracles"), **oracle("llm_official")}[name]
    wanted, params = blocks_of(case), case["params"]
    block = params.get("block", 64)
    layout, tiling = TokenLayout(grid=(wanted.shape[1] * block,)), Tiling(q=(block,), kv=(block,))
    by_heads = getattr(STATIC[name], "schedule_heads", None)
    s = by_heads(layout, tiling, len(wanted)) if by_heads else STATIC[name].schedule(layout, tiling)
    got = np.repeat(s.to_mask(), [g.copies for g in s.groups], axis=0)
    assert s.visited == case["active_tiles"]
    assert (got == wanted).all()


def test_tri_shape_is_streaming_with_dense_last_rows(oracle):
    """Two calls: the last rows run dense."""
    case = oracle("llm_oracles")["tri_shape"]
    layout, tiling = TokenLayout(grid=(512,)), Tiling(q=(64,), kv=(64,))
    mask = Band(window=128, sinks=64).schedule(layout, tiling).to_mask()
    mask[:, -1] = Band(causal=True).schedule(layout, tiling).to_mask()[:, -1]
    assert (mask == blocks_of(case)).all()


def test_a_shape_in_two_passes(oracle):
    """MInference's streaming kernel: a window, and a second kernel in which every row visits the sinks."""
    case = oracle("llm_oracles")["minference_a_shape_two_pass"]
    layout, tiling = TokenLayout(grid=(512,)), Tiling(q=(64,), kv=(64,))
    assert Band(window=128).schedule(layout, tiling).visited == case["window_pass_tiles"]
    every_row = Band().schedule(layout, tiling).slice((0, 512), (0, 64))
    assert every_row.visited == case["sink_pass_tiles"]


def test_log_sparse(oracle):
    case = oracle("llm_oracles")["logsparse_blocks"]
    mask = Strided(local=1, powers=True).schedule(TokenLayout(grid=(512,)), Tiling(q=(64,), kv=(64,))).to_mask()[0]
    assert [np.flatnonzero(row).tolist() for row in mask] == case["rows"]


def test_power_attention_at_32k(oracle):
    case = oracle("llm_oracles")["power_attention_32k_block256"]
    family = Strided(block=256, local=5, sinks=1, powers=True)
    s = family.schedule(TokenLayout(grid=(32768,)), Tiling(q=(256,), kv=(256,)))
    assert s.visited == case["active_tiles"]
    assert np.flatnonzero(s.to_mask()[0, -1]).tolist() == case["last_row"]
    assert s.visited / (128 * 129 / 2) == pytest.approx(case["density_vs_causal"])


def test_dkernel_as_phi3_small_has_it(oracle):
    case = oracle("llm_official")["dkernel_phi3small_like"]
    s = Strided(local=16, stride=8, head_step=1).schedule_heads(TokenLayout(grid=(8192,)), Tiling(q=(64,), kv=(64,)), 8)
    assert s.counts.visited.reshape(8, -1).sum(1).tolist() == case["tiles_per_head"][::4]
    assert s.visited / 8 / case["causal_tiles"] == pytest.approx(case["density_mean"])


def test_combiner_has_direct_spans_and_one_summary_of_each_earlier_span(oracle):
    case = oracle("llm_oracles")["combiner_fixed"]
    s = Strided(span=2).schedule(TokenLayout(grid=(512,)), Tiling(q=(64,), kv=(64,)))
    assert s.visited == case["direct_tiles"]
    spans = 512 // case["params"]["span"]
    assert 128 * sum(range(spans)) == case["summary_pairs"]


TOPICS = {
    "minference_block_sparse": (lambda q, k: rules.mean_pool_top_k(q, k, 64, 3), qks(2, 512, 32, 64)),
    "mean_pool_mass": (lambda q, k: rules.mean_pool_mass(q, k, 64, 0.9), qks(2, 512, 32, 64)),
    "xattention_antidiagonal": (lambda q, k: rules.xattention(q, k, 64, 8, 0.9), qks(2, 512, 32, 64)),
    "xattention_selection": (lambda q, k: rules.xattention(q, k, 64, 8, 0.9), qks(2, 512, 32, 64)),
    "pbs": (lambda q, k: rules.pbs(q, k, 64, 128, 0.9), qks(3, 512, 32, 64)),
    "seer_threshold_like": (lambda q, k: rules.seer(q, k, 64, 0.1), qks(11, 512, 32, 64)),
    "blasst_kept_tiles_left_to_right": (lambda q, k: rules.blasst(q, k, 64, 64, 0.02), qks(10, 512, 32, 64, 1.5)),
    "blasst_kept_tiles_right_to_left": (
        lambda q, k: rules.blasst(q, k, 64, 64, 0.02, backwards=True),
        qks(10, 512, 32, 64, 1.5),
    ),
    "sale_tiles_64x32": (lambda q, k: rules.sale(q, k, 64, 32, 0.004), qks(10, 512, 32, 64, 1.5)),
    "sparsed": (lambda q, k: rules.sparsed(q, k, 64, 0.3), qks(23, 512, 32, 64)),
    "flexprefill_gamma0.9_tau0.0": (
        lambda q, k: lines.flexprefill(q, k, 64, gamma=0.9, tau=0.0, least=2, most=16),
        qks(20, 1024, 32, 64, 1.2),
    ),
    "flexprefill_gamma0.9_tau0.9": (
        lambda q, k: lines.flexprefill(q, k, 64, gamma=0.9, tau=0.9, least=2, most=16),
        qks(20, 1024, 32, 64, 1.2),
    ),
    "dhsa": (lambda q, k: lines.dhsa(q, k, 128, 32, 8), qks(21, 1024, 32, 64)),
    "dhsa_with_A_shape": (lambda q, k: lines.dhsa(q, k, 128, 32, 8, "a_shape"), qks(21, 1024, 32, 64)),
    "dhsa_with_vertical_slash": (lambda q, k: lines.dhsa(q, k, 128, 32, 8, "lines"), qks(21, 1024, 32, 64)),
}


@pytest.mark.parametrize(("source", "name"), [(source, name) for source in CASES for name in TOPICS if name in CASES[source]])
def test_choices_from_queries_and_keys(source, name):
    choose, inputs = TOPICS[name]
    assert (choose(*inputs) == blocks_of(CASES[source][name])).all()


def test_lines_from_queries_and_keys(oracle):
    case = oracle("llm_oracles")["minference_vs_estimated"]
    ((vertical, slash),) = lines.top_lines(lines.line_scores(*qk(1, 1, 512, 32), 64), 40, 120)
    assert vertical.tolist() == case["vertical"]
    assert slash.tolist() == case["slash"]


@pytest.mark.parametrize("row", ["3", "7", "15"])
def test_search_of_hip(oracle, row):
    case = oracle("llm_official")["hip_v1_1_draft"]
    q, k = (x[0] for x in qks(22, 1024, 32, 64))
    end = (int(row) + 1) * 64
    found = search_by_halves(q[end - 64 : end], k[:end], 8, 16)
    assert (8 * found).tolist() == case["rows"][row]


def test_stripes_of_anchor_attention(oracle):
    case = oracle("llm_oracles")["anchor_stripes"]
    found = lines.anchor_stripes(*qks(8, 1024, 32, 64), 16, 16, 3.0)
    counts = [int(keys.sum()) for keys in found]
    assert counts == case["stripes_per_big_block"]
    assert 16 * sum(-(-n // 128) for n in counts) == case["step3_gather_tiles"]
    first_and_own = Strided(block=16, causal=False, span=16, sinks=16)
    assert first_and_own.schedule(TokenLayout(grid=(1024,)), Tiling(q=(16,), kv=(16,))).visited == case["step1_tiles_16x16"]


@pytest.mark.parametrize("residue", [64])
def test_a_grid_of_tokens_touches_every_tile_until_it_is_permuted(oracle, residue):
    """MMInference: one phase of a grid is a diagonal of blocks once tokens of a phase lie side by side."""
    before, after = (blocks_of(oracle("llm_oracles")[name])[0] for name in ("mm_grid_tokens", "mm_grid_slash_permuted"))
    token = np.arange(512)
    same = (token[:, None] % residue == token % residue) & (token[:, None] >= token)
    order = np.argsort(token % residue, kind="stable")

    def tiles(mask):
        return mask.reshape(8, 64, 8, 64).any((1, 3))

    assert (tiles(same) == before).all()
    assert (tiles(same[order][:, order]) == after).all()
