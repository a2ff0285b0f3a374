"""Token-wise selection against the published visits, and against a brute-force mask of the same lists."""

import time

import msgspec
import numpy as np
import pytest
from simattn.facts import UserError
from simattn.workloads import Tiling, TokenLayout
from simattn.workloads.estimators.tokens import infllm_blocks, moba_blocks, nsa_blocks
from simattn.workloads.families import Chunks, TokenSelect
from simattn.workloads.lists import draw_lists

from .conftest import qk, qks

LAYOUT = TokenLayout(grid=(512,))


def row(lists, query):
    return lists.ids[lists.indptr[query] : lists.indptr[query + 1]].tolist()


def rows_of(lists, wanted):
    return {query: row(lists, int(query)) for query in wanted}


def seen_by(lists, block, tokens):
    """The blocks of each query, up to itself: bool [queries, keys]."""
    mask = np.zeros((tokens, tokens), bool)
    for query in range(tokens):
        for b in row(lists, query):
            mask[query, b * block : min((b + 1) * block, query + 1)] = True
    return mask


def test_nsa_blocks_and_visits(oracle):
    published = oracle("llm_oracles")["nsa"]
    q, k = qk(5, 2, 512, 32)
    lists = nsa_blocks(q, k[0], block=64, top=3)
    assert rows_of(lists, published["blocks_rows"]) == published["blocks_rows"]
    assert rows_of(lists, published["blocks_rows"]) == oracle("llm_official")["nsa_compression_topk"]["rows"]
    family = TokenSelect(block=64, top=3)
    schedule = family.listed(lists, LAYOUT, Tiling(q=(16,), kv=(64,), pack=2))
    assert schedule.visited == published["selected_block_visits"] == 1344
    assert schedule.pairs == 2 * seen_by(lists, 64, 512).sum()
    # Blocks of compressed keys that lie wholly before the query and itself.
    assert int(((np.arange(512) + 1) // 64).sum()) == published["compressed_visits"]


def test_fsa_goes_through_the_blocks(oracle):
    published = oracle("llm_oracles")["nsa"]
    q, k = qk(5, 2, 512, 32)
    lists = nsa_blocks(q, k[0], block=64, top=3)
    assert np.bincount(lists.ids).tolist() == published["fsa_tokens_per_kv_block"]
    schedule = TokenSelect(block=64, top=3).listed(lists, LAYOUT, Tiling(q=(128,), kv=(64,), major="kv"))
    assert schedule.visited == published["fsa_q_tiles_128"] == 14
    assert schedule.pairs == seen_by(lists, 64, 512).sum()


def test_infllm_v2_visits(oracle):
    published = oracle("llm_oracles")["infllm_v2"]
    q, k = qk(6, 1, 512, 32)
    lists = infllm_blocks(q, k[0], block=64, top=4, init=1, local=1)
    assert rows_of(lists, published["rows"]) == published["rows"]
    schedule = TokenSelect(block=64, top=4, init=1, local=2).listed(lists, LAYOUT, Tiling(q=(16,), kv=(64,), pack=16))
    assert schedule.visited == published["selected_block_visits"] == 1664


def test_moba_chunks(oracle):
    published = oracle("llm_oracles")["moba"]
    q, k = qks(4, 512, 32, 64)
    (lists,) = moba_blocks(q[None], k, block=64, top=3)
    tokens = np.bincount(lists.ids, minlength=8).tolist()
    assert tokens == published["tokens_per_chunk"] == oracle("llm_official")["moba_gate"]["tokens_per_chunk"]
    assert rows_of(lists, published["first_rows"]) == published["first_rows"]
    family = TokenSelect(block=64, top=3, own=False, gathered=True)
    for tile, wanted in ((64, "varlen_q_tiles_64"), (128, "varlen_q_tiles_128")):
        gathered = family.listed(lists, LAYOUT, Tiling(q=(tile,), kv=(64,)))
        assert gathered.work_rows == gathered.visited == published[wanted]
        assert int(gathered.row_live.sum()) == gathered.seq_q == published["gathered_q_rows"]
    own = Chunks(chunk=64).schedule(LAYOUT, Tiling(q=(64,), kv=(64,)))
    assert own.visited == published["self_tiles"]
    # Tiles of queries and chunks in which some query sees some key, own chunks included.
    union = oracle("llm_oracles")["_moba_union"]
    touched = np.zeros((8, 8), bool)
    touched[np.repeat(np.arange(512), np.diff(lists.indptr)) // 64, lists.ids] = True
    assert np.argwhere(touched | np.eye(8, dtype=bool)).tolist() == union["active"]


@pytest.mark.parametrize(
    "tiling", [Tiling(q=(16,), kv=(64,), pack=2), Tiling(q=(16,), kv=(32,), pack=24), Tiling(q=(64,), kv=(128,))]
)
def test_drawn_lists_against_brute_force(tiling):
    family = TokenSelect(block=64, top=5, init=1, local=2, seed=3)
    layout = TokenLayout(grid=(1000,))
    schedule, seen = family.schedule(layout, tiling), seen_by(family.lists(layout), 64, 1000)
    assert schedule.pairs == tiling.pack * seen.sum()
    # A tile never holds keys of two blocks.
    tiles = np.add.reduceat(seen, np.arange(0, 1000, min(tiling.kv_rows, 64)), axis=1) > 0
    rows_of_query = -(-tiling.pack // tiling.q_rows)
    assert schedule.visited == rows_of_query * tiles.sum()
    assert schedule.row_live.sum() == 1000 * tiling.pack


def test_order_does_not_change_the_pairs():
    family, tiling = TokenSelect(block=64, top=5, init=1, local=2), Tiling(q=(64,), kv=(64,))
    by_keys = family.schedule(LAYOUT, msgspec.structs.replace(tiling, major="kv"))
    gathered = msgspec.structs.replace(family, gathered=True).schedule(LAYOUT, tiling)
    assert by_keys.major == "kv"
    assert family.schedule(LAYOUT, tiling).pairs == by_keys.pairs == gathered.pairs


def test_forced_blocks_take_their_places():
    lists = TokenSelect(block=64, top=8, init=1, local=3).lists(TokenLayout(grid=(4096,)))
    assert (np.diff(lists.indptr) == np.minimum(np.arange(4096) // 64 + 1, 8)).all()
    for query in (0, 100, 1000, 4095):
        found, own = row(lists, query), query // 64
        assert found == sorted(set(found))
        assert {0, own, max(own - 1, 0), max(own - 2, 0)} <= set(found)


def test_a_decode_step_reads_the_blocks_of_one_query():
    step = TokenSelect(block=64, top=16, init=1, local=2).schedule(
        TokenLayout(grid=(8192,), queries=1), Tiling(q=(16,), kv=(64,), pack=16)
    )
    assert (step.work_rows, step.visited, step.pairs) == (1, 16, 16 * 16 * 64)


def test_draws_follow_the_model():
    queries, blocks = 20_000, 500
    args = (np.full(queries, blocks), np.full(queries, 16))
    one, same, other = (draw_lists(*args, skip=0, stay=0.8, recent=0.5, seed=seed) for seed in (1, 1, 2))
    assert (one.ids == same.ids).all()
    assert (one.ids != other.ids).any()
    table = one.ids.reshape(queries, 16)
    stayed = np.mean([len(np.intersect1d(a, b)) for a, b in zip(table[:-1:50], table[1::50], strict=False)]) / 16
    assert 0.78 < stayed < 0.85
    uniform = draw_lists(*args, skip=0, stay=0.0, recent=0.0, seed=1)
    share = np.bincount(uniform.ids, minlength=blocks) / len(uniform.ids) * blocks
    assert abs(share - 1).max() < 0.25
    near = draw_lists(*args, skip=0, stay=0.0, recent=1.0, seed=1)
    assert np.mean(near.ids >= blocks - 22) > 0.4


@pytest.fixture
def file_of_qk(tmp_path):
    """Four query heads and two K/V heads of 512 tokens."""
    q, k = qk(5, 4, 512, 32)
    path = tmp_path / "layer.npz"
    np.savez(path, q=q, k=k[::2])
    return str(path), q, k[::2]


def test_lists_from_real_queries_and_keys(file_of_qk):
    path, q, k = file_of_qk
    packed = TokenSelect(block=64, top=3, qk=path).schedule_heads(LAYOUT, Tiling(q=(16,), kv=(64,), pack=2), 2)
    assert (len(packed.groups), packed.visited) == (2, 2 * 1344)
    for head, group in enumerate(packed.groups):
        lists = nsa_blocks(q[2 * head : 2 * head + 2], k[head], block=64, top=3)
        own = slice(*packed.runs.indptr[[group.first_row, group.first_row + group.rows]])
        assert packed.runs.length[own].sum() == seen_by(lists, 64, 512).sum()
    each = TokenSelect(block=64, top=3, own=False, gathered=True, qk=path, estimator="moba")
    assert len(each.schedule_heads(LAYOUT, Tiling(q=(64,), kv=(64,)), 4).groups) == 4
    with pytest.raises(UserError, match="2 K/V heads of 512 tokens"):
        TokenSelect(qk=path).schedule_heads(TokenLayout(grid=(1024,)), Tiling(q=(16,), kv=(64,)), 4)


def test_mistakes_are_named():
    with pytest.raises(UserError, match="init \\+ local must be at most top"):
        TokenSelect(top=2, init=1, local=2)
    with pytest.raises(UserError, match="own=true"):
        TokenSelect(top=4, init=1, own=False)
    with pytest.raises(UserError, match="one list for each of 512 queries"):
        TokenSelect().listed(TokenSelect().lists(TokenLayout(grid=(64,))), LAYOUT, Tiling(q=(16,), kv=(64,)))


def test_long_sequences_are_quick():
    layout = TokenLayout(grid=(131_072,))
    TokenSelect(block=64, top=16).schedule(LAYOUT, Tiling(q=(16,), kv=(64,)))
    began = time.perf_counter()
    schedule = TokenSelect(block=64, top=64, init=1, local=33).schedule(layout, Tiling(q=(16,), kv=(64,), pack=16)).with_copies(2)
    assert schedule.visited > 16e6
    assert time.perf_counter() - began < 5
