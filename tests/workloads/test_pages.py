"""Decode pages: what a step reads, and the choices of systems from real Q and K."""

import numpy as np
import pytest
from simattn.facts import UserError
from simattn.workloads import Tiling, TokenLayout
from simattn.workloads.estimators.tokens import label_keys, quest_pages
from simattn.workloads.families import Pages

STEP = TokenLayout(grid=(512,), queries=1)


def one_query():
    """The published cases draw the keys first, then one query."""
    r = np.random.default_rng(9)
    k = r.standard_normal((512, 32))
    return r.standard_normal(32), k


def test_quest_pages_and_bytes(oracle):
    published = oracle("llm_oracles")["quest"]
    q, k = one_query()
    pages = quest_pages(q, k, page=16, pages=8)
    assert pages.tolist() == published["pages"]
    step = Pages(page=16, budget=128).schedule(STEP, Tiling(q=(16,), kv=(64,)))
    assert step.blocks == (16, len(pages), 32)
    token = 2 * 32 * 2
    assert step.pairs * token == published["bytes_per_head_fp16"]["attend"]
    assert 512 * token == published["bytes_per_head_fp16"]["full"]
    # The least and the greatest key of each page.
    assert 512 // 16 * token == published["bytes_per_head_fp16"]["estimate"]
    assert (step.pairs + 512 // 16) / 512 == published["load_fraction"]


def test_double_sparsity_keys(oracle):
    published = oracle("llm_oracles")["double_sparsity"]
    q, k = one_query()
    channels = np.argsort(-np.abs(k).sum(0))[:4]
    assert label_keys(q, k, channels=channels, keys=32).tolist() == published["tokens"]


def test_whole_pages_are_read():
    step = Pages(page=64, budget=100).schedule(STEP, Tiling(q=(16,), kv=(64,), pack=8))
    assert (step.visited, step.pairs, step.row_live.tolist()) == (2, 8 * 128, [8])
    everything = Pages(page=64).schedule(STEP, Tiling(q=(16,), kv=(128,), pack=8))
    assert (everything.visited, everything.pairs) == (4, 8 * 512)
    more = Pages(budget=10_000).schedule(STEP, Tiling(q=(16,), kv=(64,)))
    assert more.pairs == 512


def test_a_prefill_has_no_pages():
    with pytest.raises(UserError, match="decode step"):
        Pages().schedule(TokenLayout(grid=(512,)), Tiling(q=(16,), kv=(64,)))
