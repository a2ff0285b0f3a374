import tomllib
from math import prod

import pytest
from simattn.facts import UserError
from simattn.workloads.model import models

FOLDER = models.folder
SHIPPED = {
    "hunyuan-video": {
        "720x1280x129": (118800, 119056),
        "768x1280x117": (115200, 115456),
        "768x1280x129": (126720, 126976),
        "720x1280x253": (230400, 230656),
        "720x1280x509": (460800, 461056),
    },
    "wan2.1-1.3b": {"480x832x81": (32760, 32760), "480x832x321": (126360, 126360), "1088x1920x81": (171360, 171360)},
    "wan2.1-14b": {
        "480x832x81": (32760, 32760),
        "720x1280x81": (75600, 75600),
        "768x1280x69": (69120, 69120),
        "720x1280x161": (147600, 147600),
        "720x1280x321": (291600, 291600),
    },
    "wan2.2-a14b": {"720x1280x81": (75600, 75600), "768x1280x77": (76800, 76800), "480x832x81": (32760, 32760)},
    "wan2.2-5b": {"704x1280x121": (27280, 27280)},
    "cogvideox-5b": {"480x720x49": (17550, 17776)},
    "cogvideox1.5-5b": {"768x1360x81": (44880, 45104), "768x1360x161": (85680, 85904)},
    "mochi-1": {"480x848x163": (44520, 44776), "480x848x667": (178080, 178336)},
    "cosmos-7b": {"704x1280x121": (56320, 56320)},
    "cosmos-14b": {"704x1280x121": (56320, 56320)},
    "flux-dev": {"1024x1024": (4096, 4608), "2048x2048": (16384, 16896), "4096x4096": (65536, 66048)},
    "flux-dev-4k": {"1024x1024": (4096, 4608), "2048x2048": (16384, 16896), "4096x4096": (65536, 66048)},
    "opensora-2": {"576x1024x129": (76032, 76544)},
    "ltx-2b": {"480x704x161": (6930, 6930)},
    "llama-3.1-8b": {"8k": (8192, 8192), "32k": (32768, 32768), "128k": (131072, 131072)},
    "llama-3.1-70b": {"8k": (8192, 8192), "32k": (32768, 32768), "128k": (131072, 131072)},
    "llama-2-7b": {"4k": (4096, 4096), "32k": (32768, 32768)},
    "qwen2.5-7b": {"8k": (8192, 8192), "32k": (32768, 32768), "128k": (131072, 131072)},
    "qwen2.5-72b": {"8k": (8192, 8192), "32k": (32768, 32768), "128k": (131072, 131072)},
    "qwen2.5-1.5b": {"8k": (8192, 8192), "32k": (32768, 32768)},
    "qwen3-30b-a3b": {"8k": (8192, 8192), "32k": (32768, 32768), "128k": (131072, 131072)},
    "llada-8b": {"4k": (4096, 4096)},
    "dream-7b": {"4k": (4096, 4096), "8k": (8192, 8192), "32k": (32768, 32768), "128k": (131072, 131072)},
    "deepseek-v3.2": {"8k": (8192, 8192), "32k": (32768, 32768), "128k": (131072, 131072)},
}
"""Tokens of the grid, and of the whole self-attention, per model and shape."""

DENOISING = ("llada-8b", "dream-7b")
"""Language models that denoise whole sequences."""

STEMS = models.names()
ALIASES = models.aliases()


def test_the_shipped_models_are_the_listed_ones():
    assert sorted(name.replace("-", "_") for name in SHIPPED) == STEMS


@pytest.mark.parametrize("name", SHIPPED)
def test_loads_by_name(name):
    model = models.load(name)
    assert model.name == name
    assert model.default in model.shapes
    assert {"sizes", "shapes"} <= model.meta.keys()
    problem = model.problem()
    assert problem.seq_q == model.layout().tokens == SHIPPED[name][model.default][1]
    assert (problem.q_heads, problem.kv_heads, problem.phase) == (model.q_heads, model.kv_heads, model.phase)


@pytest.mark.parametrize("name", SHIPPED)
def test_token_counts(name):
    model = models.load(name)
    counted = {key: (prod(shape.grid), model.layout(key).tokens) for key, shape in model.shapes.items()}
    assert counted == SHIPPED[name]


@pytest.mark.parametrize("name", SHIPPED)
def test_kind_agrees_with_text_phase_and_grid(name):
    model = models.load(name)
    texts = {shape.text for shape in model.shapes.values()}
    axes = {len(shape.grid) for shape in model.shapes.values()}
    if model.kind == "llm":
        assert (texts, model.cross_text, axes) == ({0}, 0, {1})
        assert (model.phase, model.causal) == (("diffusion", False) if name in DENOISING else ("prefill", True))
    else:
        assert (model.phase, model.causal) == ("diffusion", False)
        assert axes == ({2} if name.startswith("flux") else {3})
        assert all(shape.steps for shape in model.shapes.values())
        assert (0 in texts) == (model.kind == "dit") == (model.cross_text > 0)
        assert len(texts) == 1


@pytest.mark.parametrize("name", SHIPPED)
def test_heads_fill_the_hidden_size(name):
    model = models.load(name)
    if name == "deepseek-v3.2":
        assert (model.head_dim, model.head_dim_v, model.problem().head_dim_v) == (192, 128, 128)
    else:
        assert model.q_heads * model.head_dim == (2 if name == "qwen3-30b-a3b" else 1) * model.hidden
        assert model.problem().head_dim_v == model.head_dim


def test_hunyuan_video_default_and_long_setting():
    model = models.load("hunyuan-video")
    assert model.layout().tokens == 115456
    assert (model.layout().grid, model.layout().text) == ((30, 48, 80), 256)
    assert model.layout("720x1280x509").tokens == 461056
    assert model.layout("720x1280x509").grid == (128, 45, 80)


def test_wan_default_is_the_setting_of_the_papers():
    assert models.load("wan2.1-14b").layout().grid == (18, 48, 80)


def test_flux_4k_differs_from_flux_in_its_default_only():
    base, large = models.load("flux-dev"), models.load("flux-dev-4k")
    assert (base.layout().grid, large.layout().grid) == ((64, 64), (256, 256))
    assert (base.shapes, base.layers, base.meta) == (large.shapes, large.layers, large.meta)


@pytest.mark.parametrize("alias", ALIASES)
def test_alias_resolves(alias):
    assert alias.lower().replace("-", "_") not in STEMS
    assert ALIASES[alias] in STEMS
    assert models.load(alias) == models.load(ALIASES[alias])
    assert models.load(alias.replace("-", "_").upper()) == models.load(alias)


@pytest.mark.parametrize(("got", "nearest"), [("hunyuan_vidoe", "hunyuan_video"), ("deepseek_v3.1", "deepseek_v3.2")])
def test_unknown_model_names_the_nearest(got, nearest):
    with pytest.raises(UserError, match=f"unknown model '{got}'; did you mean '{nearest}'"):
        models.load(got)


def test_unknown_shape_names_the_nearest():
    with pytest.raises(UserError, match="unknown shape of hunyuan-video '768x1280x118'; did you mean '768x1280x117'"):
        models.load("hunyuan-video").shape("768x1280x118")


@pytest.mark.parametrize("stem", STEMS)
def test_file_is_ascii_and_sources_what_it_says(stem):
    text = (FOLDER / f"{stem}.toml").read_text(encoding="ascii")
    for origin in tomllib.loads(text).get("meta", {}).values():
        assert origin["source"].strip()
