"""Patterns by name, and the front function `schedule`: published settings, defaults, and what is refused."""

import json

import pytest
from simattn.facts import UserError
from simattn.workloads import Pattern, TokenLayout, make_layout, schedule, systems
from simattn.workloads.layout import Tiling

PUBLISHED = {
    "causal": ({"causal": True}, (32768,), 0),
    "dense": ({"causal": False, "window": None}, (30, 48, 80), 256),
    "documents": ({"lengths": [16384, 8192, 4096, 2048, 1024, 1024], "causal": True}, (32768,), 0),
    "gna": ({"window": [18, 24, 24], "stride": [16, 8, 8]}, (30, 48, 80), 0),
    "longformer": ({"window": [256, 256], "global_tokens": 64, "causal": False}, (16384,), 0),
    "radial": ({"decay": 0.95, "variant": "hunyuan", "block": 128}, (30, 48, 80), 256),
    "ragged": ({"lengths": [16384, 8192, 4096, 2048, 1024, 1024], "causal": True}, (32768,), 0),
    "sliding_window": ({"window": 4096, "sinks": 0, "causal": True}, (32768,), 0),
    "streaming_llm": ({"window": 4096, "sinks": 128, "causal": True}, (32768,), 0),
}


def refused(message, *args, **kwargs):
    """`schedule` refuses in one line."""
    with pytest.raises(UserError, match=message) as caught:
        schedule(*args, **kwargs)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_setting(name):
    params, grid, text = PUBLISHED[name]
    pattern = Pattern(name, published=True)
    assert params.items() <= pattern.params().items()
    assert json.loads(json.dumps(pattern.params())) == pattern.params()
    assert pattern.default_layout() == TokenLayout(grid=grid, text=text)


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_workload_can_be_scheduled(name):
    pattern = Pattern(name, published=True)
    tiling = Tiling(q=(4, 8, 8), kv=(2, 8, 8)) if name == "gna" else Tiling(q=(256,), kv=(128,))
    s = pattern.schedule(pattern.default_layout(), tiling)
    assert 0 < s.full <= s.visited
    assert s.pairs > 0


@pytest.mark.parametrize(("alias", "name"), systems.aliases().items())
def test_aliases(alias, name):
    assert systems.load(alias.upper().replace("_", "-")) == systems.load(name)


def test_given_parameters_replace_the_published_ones():
    assert Pattern("gna", {"window": (8, 8, 8)}, published=True).family.stride == 1
    assert Pattern("gna", {"stride": 2}, published=True).family.window == (18, 24, 24)
    assert Pattern("sliding_window", {"window": (5, 5)}, published=True).family.causal is False
    assert Pattern("streaming_llm", {"sinks": 4}, published=True).params().items() >= {"window": 4096, "sinks": 4}.items()
    assert Pattern("radial", {"decay": 2}).params() == {"decay": 2.0, "variant": "hunyuan", "block": 128}


def test_gna_of_the_docs():
    s = schedule("gna", grid=(256, 256), window=(80, 80), q_tile=(16, 16), kv_tile=(16, 8))
    assert (s.visited, s.max_visited, s.mask_free) == (18564, 84, False)


def test_three_ways_to_say_the_tokens():
    frames = schedule("radial", frames=8, tokens_per_frame=512, text=128)
    grid = schedule("radial", grid=(8, 512), text=128)
    assert (frames.visited, frames.pairs) == (grid.visited, grid.pairs)
    chunk = schedule("causal", seq_q=100, seq_kv=1000)
    assert (chunk.seq_q, chunk.seq_kv, chunk.pairs) == (100, 1000, sum(range(901, 1001)))
    assert schedule("causal", seq_kv=500).pairs == schedule("causal", seq_q=500).pairs == 500 * 501 // 2
    assert make_layout(grid=None, text=0) is None


def test_tiles_are_128_by_default_and_one_number_is_a_flat_tile():
    s = schedule("causal", seq_q=1000)
    assert (s.q_tile, s.kv_tile) == (128, 128)
    assert schedule("causal", seq_q=1000, q_tile=64).visited == schedule("causal", seq_q=1000, q_tile=(64,)).visited
    assert schedule("causal", seq_q=1000, pack=4).seq_q == 4000


@pytest.mark.parametrize(
    ("message", "name", "kwargs"),
    [
        ("unknown pattern 'radail'; did you mean 'radial'", "radail", {"seq_q": 128}),
        (r"gna: unknown \w+ 'windw'; did you mean 'window'", "gna", {"grid": (16, 16), "windw": (4, 4)}),
        (r"radial: unknown \w+ 'decya'; did you mean 'decay'", "radial", {"grid": (4, 64), "decya": 1}),
        (r"gna: missing required \w+ `window`", "gna", {"grid": (16, 16)}),
        (r"documents: missing required \w+ `lengths`", "documents", {"seq_q": 128}),
        ("window x dilation must be at most the grid along each axis, got 17 x 1", "gna", {"grid": (16, 16), "window": (17, 4)}),
        ("stride must be at most the window, got stride 5", "gna", {"grid": (16, 16), "window": 4, "stride": 5}),
        ("one number or one per axis of the grid 16x16, got 4x4x4", "gna", {"grid": (16, 16), "window": (4, 4, 4)}),
        ("a grid has 1 to 3 axes, got 4: 2x2x2x2", "dense", {"grid": (2, 2, 2, 2)}),
        ("a grid has 1 to 3 axes, got 0", "dense", {"grid": ()}),
        (r"window\[0\]", "gna", {"grid": (16, 16), "window": (0, 4)}),
        (r"text: .*>= 0 \(got -1\)", "gna", {"grid": (16, 16), "window": 4, "text": -1}),
        (r"grid\[0\]: .*>= 1", "radial", {"frames": 0, "tokens_per_frame": 512}),
        ("frames and tokens_per_frame go together", "radial", {"frames": 4}),
        ("give either grid, or frames", "radial", {"frames": 4, "tokens_per_frame": 64, "grid": (4, 64)}),
        ("give either grid or seq_q and seq_kv, not both", "dense", {"grid": (16,), "seq_q": 16}),
        ("give grid, frames and tokens_per_frame, or seq_q", "dense", {}),
        ("seq_q must be at most seq_kv, got seq_q=40 and seq_kv=20", "causal", {"seq_q": 40, "seq_kv": 20}),
        ("seq_q must be at least 1, got 0", "causal", {"seq_q": 0, "seq_kv": 10}),
        ("only on a 1-D layout without text", "causal", {"seq_q": 10, "seq_kv": 20, "text": 3}),
        ("Expected `int`, got `float`", "causal", {"seq_q": 10.5}),
        ("pattern causal: causal is always True", "causal", {"seq_q": 128, "causal": False}),
        ("tiles: q", "dense", {"seq_q": 128, "q_tile": 0}),
        ("tiles: kv", "dense", {"seq_q": 128, "kv_tile": "128"}),
        ("tiles: pack", "dense", {"seq_q": 128, "pack": 0}),
        ("takes tiles of one number", "dense", {"grid": (16, 16), "q_tile": (4, 4), "kv_tile": (4, 4)}),
        ("q_tile and kv_tile must have one number or one per axis", "gna", {"grid": (16, 16), "window": 4, "q_tile": (4, 4)}),
        (r"variant.*hunyuan.*\(got 'want'\)", "radial", {"grid": (4, 64), "variant": "want"}),
        (r"decay: .*\(got nan\)", "radial", {"grid": (4, 64), "decay": float("nan")}),
        ("radial needs as many queries as keys", "radial", {"seq_q": 10, "seq_kv": 20}),
    ],
)
def test_what_cannot_be_used_is_refused_in_one_line(message, name, kwargs):
    refused(message, name, **kwargs)


@pytest.mark.parametrize("name", ["sliding_window", "streaming_llm", "longformer"])
def test_a_window_pattern_needs_a_window(name):
    refused("window", name, seq_q=512)


@pytest.mark.parametrize("tile", [(4, 4), (16,)])
def test_boxes_do_not_pack_heads(tile):
    refused("pack", "gna", grid=(16, 16), window=4, q_tile=tile, kv_tile=tile, pack=4)
