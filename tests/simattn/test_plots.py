"""Pictures: what they show is what was predicted, and they are legible on light and on dark, for all eyes, without a network."""

import io
import itertools
import re
import sys
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.image import imread
from plotly.offline import get_plotlyjs
from simattn.hwspecs import gpus
from simattn.simulator.offload import offload
from simattn.validation import Row
from simattn.workloads import schedule

import simattn
from simattn import UserError, plots
from simattn.explain import explain
from simattn.optimize import optimize
from simattn.plots import blocks, look
from simattn.plots.blocks import PIXELS, blocks_figure
from simattn.plots.front import Mark, front, front_figure
from simattn.plots.offload import offload_figure
from simattn.plots.pareto import pareto_figure
from simattn.plots.roofline import roofline_figure
from simattn.plots.still import draw
from simattn.plots.sweep import sweep_figure
from simattn.plots.validation import errors_figure, groups_figure, times_figure, validation_page
from simattn.plots.waterfall import both_waterfalls_figure, waterfall_figure
from simattn.roofline import roofline

DARK = "#0d1117"

CVD = {
    "all": np.eye(3),
    "protan": [[0.152286, 1.052583, -0.204868], [0.114503, 0.786281, 0.099216], [-0.003882, -0.048116, 1.051998]],
    "deutan": [[0.367322, 0.860646, -0.227968], [0.280085, 0.672501, 0.047413], [-0.011820, 0.042940, 0.968881]],
    "tritan": [[1.255528, -0.076749, -0.178779], [-0.078411, 0.930809, 0.147602], [0.004733, 0.691367, 0.303900]],
}
"""What eyes see of linear RGB (Machado, Oliveira and Fernandes 2009, severity 1)."""


def linear(colour):
    value = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    return np.where(value <= 0.04045, value / 12.92, ((value + 0.055) / 1.055) ** 2.4)


def lab(rgb):
    to_xyz = np.array([[0.4124, 0.3576, 0.1805], [0.2126, 0.7152, 0.0722], [0.0193, 0.1192, 0.9505]])
    xyz = to_xyz @ rgb / [0.9505, 1, 1.089]
    f = np.where(xyz > 0.008856, np.cbrt(np.clip(xyz, 0, None)), 7.787 * xyz + 16 / 116)
    return np.array([116 * f[1] - 16, 500 * (f[0] - f[1]), 200 * (f[1] - f[2])])


def contrast(one, other):
    low, high = sorted(float(linear(c) @ [0.2126, 0.7152, 0.0722]) + 0.05 for c in (one, other))
    return high / low


def row(number, pattern="causal", error=0.1, **other):
    kept = {"gpu": "a" * (1 + number % 3), "kernel": "k", "phase": "prefill", "head_dim": 128, "part": "C"} | other
    return Row(f"row {number}", pattern=pattern, measured_ms=1.0 + number, predicted_ms=(1.0 + number) * (1 + error), **kept)


ROWS = [row(n, "causal" if n % 2 else "sliding_window", (n - 6) / 30) for n in range(13)] + [row(20, error=2.0)]


@pytest.fixture(scope="module")
def figures():
    """Each kind of picture, once."""
    why = explain("sliding_window", "h100", window=512, seq_q=8192)
    runs = [
        offload("llama-3.1-8b", "sliding_window", "h100", context=32768, hit_rate=hit, params={"window": 2048})
        for hit in (0.0, 0.9, 1.0)
    ]
    marks = [Mark(n, 10 / n + n % 3, f"stride {n}", "ab"[n % 2]) for n in range(1, 12)]
    return {
        "blocks": blocks_figure(schedule("causal", seq_q=2048, q_tile=128, kv_tile=128), "causal"),
        "shares": blocks_figure(schedule("causal", seq_q=2 * PIXELS * 64, q_tile=64, kv_tile=64), "causal"),
        "roofline": roofline_figure(roofline("h100", ["causal", "sliding_window"])),
        "waterfall": waterfall_figure(why.prediction),
        "waterfalls": both_waterfalls_figure(why),
        "offload": offload_figure({"one": runs}),
        "front": front_figure(marks, title="strides", x="stride", y="latency, ms"),
        "pareto": pareto_figure(optimize("gna", "b200", grid=(64, 64), params={"window": (16, 16)}, vary={"stride": None})),
        "bars": pareto_figure(optimize("gna", "b200", vary={"tile": None})),
        "times": times_figure(ROWS),
        "errors": errors_figure(ROWS),
        "groups": groups_figure(ROWS),
    }


NAMES = (
    "blocks",
    "shares",
    "roofline",
    "waterfall",
    "waterfalls",
    "offload",
    "front",
    "pareto",
    "bars",
    "times",
    "errors",
    "groups",
)


@pytest.mark.parametrize("ground", ["#ffffff", DARK], ids=["light", "dark"])
def test_colours_stand_out(ground):
    for colour in (*look.COLOURS, look.INK, look.FAINT):
        assert contrast(colour, ground) > (2.7 if colour == look.FAINT else 2.95), colour


@pytest.mark.parametrize("eyes", CVD)
def test_colours_are_told_apart(eyes):
    seen = [lab(np.clip(np.array(CVD[eyes]) @ linear(colour), 0, 1)) for colour in look.COLOURS]
    assert min(np.linalg.norm(a - b) for a, b in itertools.combinations(seen, 2)) > 15


@pytest.mark.parametrize("name", NAMES)
def test_axes_say_what_they_are(figures, name):
    layout = figures[name].layout
    assert layout.title.text
    assert layout.xaxis.title.text
    assert layout.yaxis.title.text or name in (
        "waterfall",
        "waterfalls",
        "bars",
        "groups",
    )  # names of stages, configurations and groups
    for side in (layout.xaxis, layout.yaxis):
        assert re.search(r"ms|%|tile|second|FLOP|stride|queries|^None", str(side.title.text)), side.title.text
    ground = layout.template.layout
    assert (ground.paper_bgcolor, ground.plot_bgcolor) == ("rgba(0,0,0,0)",) * 2


@pytest.mark.parametrize("name", NAMES)
def test_still_pictures_hold_their_colours_on_any_ground(figures, name):
    picture = imread(io.BytesIO(draw(figures[name], scale=1.0)))
    height, width, channels = picture.shape
    assert (channels, width) == (4, look.WIDTH)
    assert height == figures[name].layout.height
    assert picture[0, 0, 3] == picture[-1, -1, 3] == 0  # transparent
    first = np.array([int(look.COLOURS[0][i : i + 2], 16) for i in (1, 3, 5)]) / 255
    assert (np.abs(picture[..., :3] - first).max(2) < 0.02).sum() > 20
    # Nothing leaves the picture.
    for edge in (picture[0], picture[-1], picture[:, 0], picture[:, -1]):
        assert (edge[:, 3] > 0.5).sum() == 0


def test_pages_need_no_network(figures):
    text = plots.as_page("all <of> them", ["<p>words</p>", *figures.values()])
    assert text.startswith("<!doctype html>")
    assert "all &lt;of&gt; them" in text
    assert text.count(get_plotlyjs()) == 1
    outside = re.sub(r"<script.*?</script>", "", text, flags=re.DOTALL)
    assert not re.search(r"https?://|@import|<link|src=", outside)
    assert not re.search(r"<script[^>]+src", text)
    assert "prefers-color-scheme: dark" in text
    assert plots.as_page("again", list(figures.values())) == plots.as_page("again", list(figures.values()))


def test_blocks_are_those_of_the_schedule():
    s = schedule("sliding_window", seq_q=2048, window=300, q_tile=128, kv_tile=64)
    drawn = blocks_figure(s, "window")
    cells = np.asarray(drawn.data[0].z)
    assert cells.shape == (16, 32)
    assert ((cells == 2).sum(), (cells == 1).sum()) == (s.full, s.partial)
    assert f"{s.visited} of 512 tiles of 128 x 64" in drawn.layout.title.text
    # A token is as high as it is wide.
    assert (drawn.layout.yaxis.scaleanchor, drawn.layout.yaxis.scaleratio) == ("x", 2)
    assert blocks_figure(schedule("dense", seq_q=256, seq_kv=4096), "slim").layout.yaxis.scaleanchor is None


def test_large_schedules_are_shares():
    s = schedule("causal", seq_q=3 * PIXELS * 64, q_tile=64, kv_tile=64)
    cells = np.asarray(blocks_figure(s, "causal").data[0].z)
    assert cells.shape == (PIXELS, PIXELS)
    assert cells.sum() * 9 / 100 == pytest.approx(s.visited, rel=1e-3)
    assert (cells[0, 0], cells[0, 1], cells[1, 0]) == (67, 0, 100)


def test_a_single_tile_of_a_large_schedule_is_seen(monkeypatch):
    monkeypatch.setattr(blocks, "PIXELS", 2)
    # 32 x 32 tiles a cell: one of the 1,024 is a tenth of a percent.
    all_before = schedule("causal", seq_q=64, q_tile=1, kv_tile=1)
    assert np.asarray(blocks_figure(all_before, "causal").data[0].z).tolist() == [[52, 0], [100, 52]]
    few = schedule("sliding_window", seq_q=64, window=2, q_tile=1, kv_tile=1)
    assert np.asarray(blocks_figure(few, "few").data[0].z).tolist() == [[6, 0], [1, 6]]


def test_keys_first_where_keys_own():
    drawn = blocks_figure(replace(schedule("causal", seq_q=1024), major="kv"), "backward")
    assert drawn.layout.yaxis.title.text.startswith("kv tile")
    assert drawn.layout.xaxis.title.text.startswith("q tile")


def test_bars_are_the_ladder():
    why = explain("gna", "h100", grid=(64, 64), window=(16, 16))
    p = why.prediction
    (alone,) = waterfall_figure(p).data
    dense, sparse = both_waterfalls_figure(why).data
    for bars, stages in ((alone, p.waterfall), (sparse, p.waterfall), (dense, why.dense_waterfall)):
        ends = np.add(bars.base, bars.x)
        assert ends == pytest.approx([stage.latency_ms for stage in stages])
        assert bars.base[1:] == pytest.approx(ends[:-1])
    assert sparse.y[0] == f"ideal  <b>{why.stages[0].factor:.2f} x</b>"
    assert why.stages[3].cause in sparse.customdata[3][1]


def test_roofline_points_lie_where_predicted(figures):
    found = roofline("h100", ["causal", "sliding_window"])
    marked = [trace for trace in figures["roofline"].data if trace.marker.symbol]
    assert [trace.name for trace in marked] == [f"{p.pattern}, {p.kernel}" for p in found.points]
    for trace, point in zip(marked, found.points, strict=True):
        assert tuple(trace.x) == (point.l2_intensity, point.dram_intensity)
        assert tuple(trace.y) == (point.tflops, point.tflops)
        assert "limited by" in trace.hovertemplate
    lines = [trace for trace in figures["roofline"].data if trace.mode == "lines"]
    assert len(lines) == len(found.roofs)
    for roof, line in zip(found.roofs, lines, strict=True):
        for x, y in zip(line.x, line.y, strict=True):
            assert roof.at(x) == pytest.approx(y)


@pytest.mark.parametrize(("gpu", "patterns"), [("h20", ["dense"]), *((gpu, []) for gpu in gpus.names())])
def test_the_name_of_l2_has_room(gpu, patterns):
    drawn = roofline_figure(roofline(gpu, patterns, model="hunyuan-video"))
    (name,) = (trace for trace in drawn.data if trace.mode == "text" and "L2" in trace.text[0])
    low, high = drawn.layout.xaxis.range
    # It ends where it is put, at 7 pixels a letter, in a plot of 560.
    assert (np.log10(name.x[0]) - low) / (high - low) * 560 > 7 * len(name.text[0])


def test_searches_are_drawn_whole():
    found = optimize("gna", "b200", vary={"tile": None})
    attention, beside = pareto_figure(found).data
    rows = [*found.configurations, found.usual]
    assert np.add(beside.base, beside.x) == pytest.approx([c.latency_ms for c in rows])
    assert list(attention.x) == list(beside.base)
    found = optimize("gna", "b200", grid=(64, 64), params={"window": (16, 16)}, vary={"stride": None})
    marked = [
        (x, y) for trace in pareto_figure(found).data if trace.mode == "markers" for x, y in zip(trace.x, trace.y, strict=True)
    ]
    assert sorted(marked) == sorted((c.shared, c.latency_ms) for c in [*found.configurations, found.usual])


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), min_size=1, max_size=30),
    st.sampled_from(["low", "high"]),
    st.sampled_from(["low", "high"]),
)
def test_the_front_is_what_nothing_beats(points, better_x, better_y):
    marks = [Mark(x, y, f"{n}") for n, (x, y) in enumerate(points)]
    sign = np.array([1 if goal == "low" else -1 for goal in (better_x, better_y)])
    values = np.array(points) * sign
    unbeaten = {tuple(own * sign) for own in values if not ((values <= own).all(1) & (values < own).any(1)).any()}
    best = front(marks, (better_x, better_y))
    assert {(m.x, m.y) for m in best} == unbeaten
    assert len(best) == len(unbeaten)
    assert best == sorted(best)


def test_validation_pages_say_what_was_left_out():
    text = validation_page([*ROWS, row(30)._replace(predicted_ms=None)])
    assert "14 of 15 rows were simulated" in text
    assert "1 rows lie outside the picture" in text
    with pytest.raises(UserError, match="no row was simulated"):
        validation_page([row(1)._replace(predicted_ms=None)])


def test_notebooks_keep_both_kinds(figures):
    import plotly.io as pio

    before = pio.renderers.default
    try:
        plots.in_notebooks()
        bundle = pio.renderers["simattn"].to_mimebundle(figures["blocks"].to_dict())
    finally:
        pio.renderers.default = before
    assert set(bundle) == {"application/vnd.plotly.v1+json", "image/png"}


def test_files_are_checked_before_anything_is_drawn(tmp_path):
    with pytest.raises(UserError, match=r"must end in one of \.html, \.png"):
        plots.check(tmp_path / "a.pdf")
    with pytest.raises(UserError, match="no such folder"):
        plots.check(tmp_path / "none" / "a.png")


@pytest.mark.parametrize(("module", "work"), [("plotly", lambda f: look.plotly()), ("matplotlib", draw)])
def test_what_is_missing_is_said(monkeypatch, figures, module, work):
    for name in [name for name in sys.modules if name.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(UserError, match=rf"need {module}.*: pip install 'simattn\[viz\]'"):
        work(figures["blocks"])


def test_sweeps_are_drawn_over_what_varies_first():
    fields = {"patterns": "sliding_window", "options": {"seq_q": 2048, "q_heads": 4, "kv_heads": 4}}
    made = simattn.sweep(hw=["h100", "b200"], vary={"window": [512, 128]}, jobs=1, **fields)
    drawn = sweep_figure(made)
    curve = {trace.name: trace for trace in drawn.data}
    assert set(curve) == {"gpu b200_sxm", "gpu h100_sxm"}
    assert list(drawn.layout.xaxis.ticktext) == ["128", "512"]
    times = {row["window"]: row["latency_ms"] for row in made.rows if row["gpu"] == "h100_sxm"}
    assert dict(zip(curve["gpu h100_sxm"].x, curve["gpu h100_sxm"].y, strict=True)) == {0: times[128], 1: times[512]}
    alone = sweep_figure(simattn.sweep(hw="h100", vary={"window": [512, 128]}, jobs=1, **fields))
    assert [trace.name for trace in alone.data] == ["time", "dense"]
    with pytest.raises(UserError, match="needs a name that varies"):
        sweep_figure(simattn.sweep(hw="h100", vary={"window": [512]}, jobs=1, **fields))
