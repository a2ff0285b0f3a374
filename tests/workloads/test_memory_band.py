"""Bands in memory order against the code of Sparse VideoGen, block for block, and brute force."""

import hashlib

import numpy as np
import pytest
from simattn.facts import UserError
from simattn.workloads.families import MemoryBand
from simattn.workloads.layout import Tiling, TokenLayout
from simattn.workloads.schedule import Kind

FLAT = Tiling(q=(128,), kv=(128,))


def svg_of(case):
    variant = "hunyuan" if "hunyuan" in case["model"] else "wan"
    layout = TokenLayout(grid=(case["frames"], case["tokens_per_frame"]), text=case["context"])
    return MemoryBand(keep=case["param_sparsity"], variant=variant, prompt=case["prompt"]), layout


def full_as_in_the_vectors(s, family, layout):
    """Full tiles as the vectors count them: padded keys count as seen, and padding of the text that sees itself does not."""
    real = family._parts(layout)[1]
    padding = max(-(-layout.tokens // 128) - -(-real // 128), 0) ** 2 if family.variant == "hunyuan" else 0
    last = (s.kv_tiles - 1) * 128
    to_the_end = (s.runs.kind == Kind.FULL) & (s.runs.start <= last) & (s.runs.stop == layout.tokens)
    return s.full + (int(to_the_end.sum()) if layout.tokens % 128 else 0) - padding


def test_sparse_videogen(oracle):
    cases = oracle("visual_misc")["svg1"]
    assert len(cases) == 5
    for case in cases:
        family, layout = svg_of(case)
        s = family.schedule(layout, FLAT)
        assert s.visited == case["active_any"]
        assert s.q_tiles == s.kv_tiles == case["blocks"]
        assert round(s.visited / case["blocks"] ** 2, 6) == case["density_any"]
        assert hashlib.sha256(s.to_mask()[0].astype(np.uint8).tobytes()).hexdigest() == case["sha256"]
        # Below the rounded width in one variant, up to it in the other.
        assert family.reach(layout) + (family.variant == "hunyuan") == case["band_tokens"]
        # A kernel masks padded keys, so a tile that has them is not full here; in these vectors it may be.
        assert full_as_in_the_vectors(s, family, layout) == case["full_unmasked"]


@pytest.mark.parametrize("variant", ["hunyuan", "wan", "re-ttention"])
@pytest.mark.parametrize("seed", range(12))
def test_equals_brute_force(variant, seed, same):
    rng = np.random.default_rng([seed, 5])
    text = int(rng.integers(0, 60)) if variant == "hunyuan" else 0
    layout = TokenLayout(grid=(int(rng.integers(3, 6)), int(rng.integers(200, 300))), text=text)
    keep = float(rng.uniform(2 * text / layout.tokens + 0.4, 1))
    family = MemoryBand(keep=keep, variant=variant, prompt=int(rng.integers(0, text + 1)))
    same(family, layout, Tiling(q=(int(rng.integers(1, 150)),), kv=(int(rng.integers(1, 150)),)))


@pytest.mark.parametrize("prompt", [None, 256])
def test_all_text_is_prompt_by_default(prompt):
    layout = TokenLayout(grid=(33, 3600), text=256)
    s = MemoryBand(keep=0.25, prompt=prompt).schedule(layout, FLAT)
    assert s.to_mask()[0, :, -2:].all()
    assert s.to_mask()[0, -2:].all()


def test_kept_share_is_what_was_asked_for():
    """Within 1.5 points, which is what rounding to 128 tokens and text can do."""
    for keep, variant, layout in [
        (0.25, "hunyuan", TokenLayout(grid=(33, 45, 80), text=256)),
        (0.3, "re-ttention", TokenLayout(grid=(64, 64))),
    ]:
        s = MemoryBand(keep=keep, variant=variant).schedule(layout, FLAT)
        kept = s.pairs / layout.tokens**2
        assert kept == pytest.approx(keep if variant == "hunyuan" else keep - keep**2 / 4, abs=0.015)


@pytest.mark.parametrize(
    ("params", "layout", "message"),
    [
        ({"keep": 0.01}, TokenLayout(grid=(4, 100), text=100), "room for the rows and columns of 100 text tokens"),
        ({"keep": 0.1}, TokenLayout(grid=(4, 100)), "narrower than 128 tokens"),
        ({"keep": 0.5, "prompt": 9}, TokenLayout(grid=(4, 100), text=8), "at most the text of 8 tokens"),
        ({"keep": 0.5}, TokenLayout(grid=(400,), queries=10), "fewer queries than keys"),
    ],
)
def test_what_does_not_fit_is_refused(params, layout, message):
    with pytest.raises(UserError, match=message):
        MemoryBand(**params).schedule(layout, FLAT)
