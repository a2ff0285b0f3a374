"""Estimates that no known mask covers, and masks of a file of real queries and keys."""

import numpy as np
import pytest
from simattn.facts import UserError
from simattn.workloads import Tiling, TokenLayout
from simattn.workloads.estimators import OWN, RULES, SCORES, Numbers, choose
from simattn.workloads.estimators.scores import attention, exact_mass, past, pooled, sampled_max
from simattn.workloads.families import PooledSelect

TILES = Tiling(q=(64,), kv=(64,))


def qk(heads=2, tokens=512, width=16, kv_heads=None, seed=0):
    """Neighbours look for neighbours: keys drift slowly."""
    rng = np.random.default_rng(seed)
    k = np.cumsum(rng.standard_normal((kv_heads or heads, tokens, width)), axis=1) / 4
    return np.repeat(k, heads // len(k), axis=0) + rng.standard_normal((heads, tokens, width)), k


@pytest.fixture
def layer(tmp_path):
    q, k = qk(4, kv_heads=2)
    np.savez(tmp_path / "layer.npz", q=q, k=k)
    return str(tmp_path / "layer.npz"), q, np.repeat(k, 2, axis=0)


@pytest.mark.parametrize("causal", [False, True])
def test_exact_mass_is_that_of_the_whole_map(causal):
    q, k = qk(tokens=200)
    whole = attention(q, k, causal=causal)
    mass = exact_mass(q, k, 64, 32, causal=causal)
    for row, column in np.ndindex(mass.shape[1:]):
        block = whole[:, row * 64 : (row + 1) * 64, column * 32 : (column + 1) * 32]
        assert mass[:, row, column] == pytest.approx(block.sum((1, 2)) / block.shape[1])
    assert mass.sum(-1) == pytest.approx(1.0)


def test_pooling_leaves_out_what_is_not_there():
    x = np.arange(10.0).reshape(1, 10, 1)
    assert pooled(x, 4).ravel().tolist() == [1.5, 5.5, 8.5]


def test_samples_see_no_more_than_the_whole_map():
    q, k = qk()
    assert sampled_max(q, k, 64, 16, 0).shape == (2, 8, 8)
    assert (sampled_max(q, k, 64, 64, 0) <= 1).all()


@pytest.mark.parametrize(("estimator", "rule"), [
    *((scores, rule) for scores in SCORES for rule in RULES if scores != "products" or "mass" not in rule),
    *((system, "top_k") for system in OWN),
])  # fmt: skip
def test_a_causal_choice_lies_below_the_diagonal(estimator, rule):
    q, k = qk()
    numbers = Numbers(64, 64, causal=True, keep=0.5, top_k=3, segment=64, seed=0)
    kept = choose(q, k, estimator, rule, numbers)
    assert kept.shape == (2, 8, 8)
    assert kept.any()
    if estimator not in ("sampled", "sparsed"):
        assert not (kept & ~past(8, 8)).any()


def test_masks_of_a_file(layer):
    file, q, k = layer
    family = PooledSelect(causal=True, rule="row_mass", density=0.5, sinks=1, qk=file, estimator="mean_pool", keep=0.9)
    s = family.schedule_heads(TokenLayout(grid=(512,)), TILES, 8)
    numbers = Numbers(64, 64, causal=True, keep=0.9, top_k=0, segment=1, seed=0)
    wanted = choose(q, k, "mean_pool", "row_mass", numbers) | np.eye(8, dtype=bool)
    wanted[:, :, 0] = True
    assert [g.copies for g in s.groups] == [2] * 4
    assert (s.to_mask() == wanted).all()


def test_a_system_that_chooses_in_its_own_way(layer):
    file, q, k = layer
    family = PooledSelect(causal=True, rule="row_mass", density=0.5, qk=file, estimator="xattention", keep=0.9)
    s = family.schedule_heads(TokenLayout(grid=(512,)), TILES, 4)
    numbers = Numbers(64, 64, causal=True, keep=0.9, top_k=0, segment=1, seed=0)
    assert (s.to_mask() == OWN["xattention"](q, k, numbers)).all()


def test_boxes_of_a_grid_are_pooled_as_boxes(layer):
    file, q, k = layer
    family = PooledSelect(block=(8, 8), rule="top_k", top_k=2, local=0, qk=file, estimator="products")
    s = family.schedule_heads(TokenLayout(grid=(16, 24), text=128), TILES, 4)

    def boxes(x):
        grid = x[:, :384].reshape(4, 2, 8, 3, 8, 16).transpose(0, 1, 3, 2, 4, 5).reshape(4, 6, 64, 16).mean(2)
        return np.concatenate([grid, x[:, 384:].reshape(4, 2, 64, 16).mean(2)], axis=1)

    best = np.argsort(-(boxes(q) @ boxes(k).swapaxes(1, 2)), axis=-1)[..., :2]
    wanted = np.zeros((4, 8, 8), bool)
    np.put_along_axis(wanted, best, True, axis=-1)
    wanted[:, 6:] = wanted[:, :, 6:] = True
    assert (s.to_mask() == wanted).all()


@pytest.mark.parametrize(("params", "layout", "message"), [
    ({"top_k": 2, "causal": True}, TokenLayout(grid=(1024,)), "hold 4 heads of 512 x 512 tokens, the call has 4 of 1024"),
    ({"top_k": 2, "causal": True}, TokenLayout(grid=(512,), queries=64), "as many queries as keys"),
    ({"top_k": 2, "block": (5, 8)}, TokenLayout(grid=(16, 32)), "cut the grid evenly"),
])  # fmt: skip
def test_a_file_that_does_not_fit_is_refused(layer, params, layout, message):
    with pytest.raises(UserError, match=message):
        PooledSelect(**params, qk=layer[0]).schedule_heads(layout, TILES, 4)
