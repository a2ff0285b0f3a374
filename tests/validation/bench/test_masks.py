"""Masks: a function of their parameters alone, with the density that they state."""

import numpy as np
import pytest
from simattn.facts import UserError
from simattn.validation.bench.masks import GENERATORS, schedule_of

PARAMS = {"block": 64, "density": 0.25, "seed": 3, "frames": 4, "decay": 0.5}


@pytest.mark.parametrize("pattern", GENERATORS)
def test_same_parameters_same_mask(pattern):
    one, two = (schedule_of(pattern, PARAMS, 2048, 2048).to_mask() for _ in range(2))
    assert (one == two).all()
    assert one.any()


@pytest.mark.parametrize("pattern", ["block_random", "block_banded", "block_imbalanced"])
@pytest.mark.parametrize("density", [0.05, 0.3, 1.0])
def test_density(pattern, density):
    made = schedule_of(pattern, {**PARAMS, "density": density}, 4096, 4096)
    assert made.visited / (made.q_tiles * made.kv_tiles) == pytest.approx(density, abs=0.02)
    assert made.full == made.visited


def test_seeds_differ_and_random_rows_are_balanced():
    one, two = (schedule_of("block_random", {**PARAMS, "seed": seed}, 2048, 2048).to_mask()[0] for seed in (1, 2))
    assert (one != two).any()
    assert set(one.sum(1)) == {8}


def test_imbalance_is_imbalanced():
    counts = np.sort(schedule_of("block_imbalanced", PARAMS, 8192, 8192).counts.visited)
    assert counts[-1] > 4 * np.median(counts)


def test_vertical_slash_is_causal_and_keeps_the_diagonal():
    mask = schedule_of("block_vertical_slash", PARAMS, 2048, 2048).to_mask()[0]
    assert mask.diagonal().all()
    assert not np.triu(mask, 1).any()


def test_keep_stays_while_the_keys_grow():
    for keys in (2048, 8192):
        assert set(schedule_of("block_banded", {"block": 128, "keep": 16}, 1024, keys).counts.visited) == {16}


def test_gna_without_masks_only():
    tiles = {"stride": [4, 8, 8], "q_tile": [4, 8, 4], "kv_tile": [4, 8, 4]}
    made = schedule_of("gna", {"feature_map": [16, 32, 32], "window": [4, 8, 16], **tiles}, 16384, 16384)
    assert (made.q_tile, made.kv_tile, made.visited) == (128, 128, 4 * 128)
    with pytest.raises(UserError, match="element mask"):
        schedule_of("gna", {"feature_map": [16, 32, 32], "window": [8, 16, 16], **tiles}, 16384, 16384)


def test_unknown_pattern():
    with pytest.raises(UserError, match="block_random"):
        schedule_of("block_randon", PARAMS, 128, 128)
