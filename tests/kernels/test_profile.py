import pytest
from simattn.hwspecs import gpus
from simattn.kernels import candidates, kernels

from simattn import UserError

WANTED = {"fa2", "fa3", "fa4", "cudnn_hopper", "cudnn_blackwell", "trtllm_gen", "flashinfer_bsr", "flex", "triton"}
WANTED |= {"natten_ampere", "natten_hopper", "natten_blackwell"}


@pytest.mark.parametrize("name", kernels.names())
def test_every_profile_loads_and_says_where_its_values_come_from(name):
    profile = kernels.load(name)
    needed = {"tiles", "program", "timing", "mask", "launch", "skip"}
    assert needed <= profile.meta.keys()
    assert all(p.source for p in profile.meta.values())


def test_the_published_kernels_are_there():
    assert set(kernels.names()) >= WANTED
    assert kernels.load("flash-attention-3").name == "fa3"


@pytest.mark.parametrize("name", kernels.names())
def test_every_profile_has_a_tile_for_each_of_its_architectures(name):
    profile = kernels.load(name)
    for hw in gpus.names():
        spec = gpus.load(hw)
        if spec.arch in profile.archs:
            for mask in profile.masks:
                tile = profile.tile_for(spec, 64, mask)
                assert profile.ctas_per_sm(spec, tile, 64, 64, 2) >= 1


def test_tiles_as_the_code_has_them():
    h100, a100, l40s = (gpus.load(name) for name in ("h100", "a100", "l40s"))
    fa2, fa3 = kernels.load("fa2"), kernels.load("fa3")
    assert (fa3.tile_for(h100, 128, "dense").kv, fa3.tile_for(h100, 128, "dense", causal=True).kv) == ((176,), (128,))
    assert fa3.tile_for(h100, 256, "window").kv == (64,)
    paged = kernels.load("fa3_paged")
    assert [paged.tile_for(h100, 64, mask, causal=True).kv for mask in ("dense", "window")] == [(128,), (160,)]
    assert [paged.tile_for(h100, d, "dense", causal=True).kv for d in (128, 192, 256)] == [(128,), (96,), (80,)]
    assert (fa2.tile_for(a100, 128, "dense").kv, fa2.tile_for(l40s, 128, "dense").kv) == ((64,), (32,))


def test_box_tiles_by_axes():
    natten = kernels.load("natten_blackwell")
    b200 = gpus.load("b200")
    assert [natten.tile_for(b200, 128, "box", axes).q for axes in (1, 2, 3)] == [(256,), (16, 16), (8, 4, 8)]


def test_default_kernels():
    def first(hw, mask):
        return candidates(gpus.load(hw), mask)[0].name

    assert first("a100", "dense") == "fa2"
    assert first("h100", "blocks") == "flashinfer_bsr_fa3"
    assert first("b200", "blocks") == "fa4"
    assert first("rtx_5090", "box") == "natten_ampere"
    assert first("mi300x", "box") == "flex"


def test_too_wide_a_head():
    with pytest.raises(UserError, match="no profiled kernel runs dense masks in bf16 with head_dim 512"):
        candidates(gpus.load("h100"), "dense", head_dim=512)
    with pytest.raises(UserError, match="no tile for head_dim 512"):
        kernels.load("fa3").tile_for(gpus.load("h100"), 512, "dense")
