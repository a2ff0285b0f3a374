"""Unstructured sparsity: bytes of the published format, and tiles that stay."""

import numpy as np
import pytest
from simattn.workloads import Tiling, TokenLayout
from simattn.workloads.families import Band, Unstructured


def test_mustafar_bytes(oracle):
    published = oracle("llm_oracles")["mustafar_bitmap"]
    tokens, d, keep = (published["params"][name] for name in ("tokens", "d", "keep_per_token"))
    keys = np.random.default_rng(published["params"]["seed"]).standard_normal((tokens, d))
    kept = np.zeros((tokens, d), bool)
    np.put_along_axis(kept, np.argsort(-np.abs(keys), axis=1)[:, :keep], True, axis=1)
    # One piece is 64 tokens of a channel.
    padded = (-(-kept.sum(0) // 8) * 8).sum()
    pieces = tokens * d // 64
    assert (kept.sum(), padded, pieces) == (published["nnz"], published["nnz_padded8"], published["key_tiles_1x64"])
    bytes_ = published["bytes"]
    exact = (2 * padded + bytes_["bitmap"] + bytes_["offset"]) / bytes_["dense"]
    assert 2 * padded == bytes_["values"]
    assert Unstructured(keep=keep / d).stored() == pytest.approx(exact, rel=0.005)


def test_only_the_pruned_part_of_a_cache_is_smaller():
    step, tiling = TokenLayout(grid=(1024,), queries=1), Tiling(q=(16,), kv=(64,))
    half = Unstructured(keep=0.5, recent=256).schedule(step, tiling)
    assert half.stored == pytest.approx(0.25 + 0.75 * Unstructured(keep=0.5).stored())
    assert half.visited == Band(causal=True).schedule(step, tiling).visited
    assert Unstructured(keep=1.0).stored() == 1.0


def test_skipped_scores_save_no_tile():
    layout, tiling = TokenLayout(grid=(1024,)), Tiling(q=(64,), kv=(64,))
    whole = Band(causal=True).schedule(layout, tiling)
    sparse = Unstructured(keep=0.4, of="scores").schedule(layout, tiling)
    assert sparse.visited == sparse.partial == whole.visited
    assert sparse.pairs == round(0.4 * whole.pairs)
