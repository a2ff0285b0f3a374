"""optimize finds what was published, and its pruning loses nothing."""

from __future__ import annotations

import json
from itertools import product
from math import prod

import numpy as np
import pytest
from click.testing import CliRunner
from simattn.facts import UserError
from simattn.hwspecs import gpus
from simattn.simulator import question, simulate
from simattn.workloads import schedule
from simattn.workloads.families.axis import Axis

from simattn.cli import simattn as command
from simattn.optimize import optimize
from simattn.optimize.candidate import RESOLUTION, Merit, front_of
from simattn.optimize.neighborhoods import family, windows_of

HUNYUAN = {"model": "hunyuan-video", "grid": (30, 48, 80), "text": 0}


def strides(found):
    return {c.params["stride"] for c in found.front}


# -- published facts ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("gpu", ["b200", "h100"])
def test_smallest_perfect_stride_of_the_line_is_256(gpu):
    # NATTEN docs/profiler.md: 32,768 tokens, window 2,048.
    found = optimize("gna", gpu, grid=(32768,), q_heads=1, params={"window": 2048}, vary={"stride": None})
    perfect = [c for c in found.front if c.perfect]
    assert min(c.shared for c in perfect) == 256
    assert all(c.shared < 256 for c in found.front if not c.perfect)
    assert found.combinations == 2048


@pytest.mark.parametrize(
    ("grid", "window", "tiles", "published"),
    [
        # arXiv 2504.16922, Tables 2 to 5: the strides that it lists.
        ((256, 256), (80, 80), ((16, 16), (16, 8)), [(1, 1), (16, 1), (16, 16)]),
        ((16, 44, 80), (16, 32, 48), ((8, 4, 8), (4, 4, 8)), [(1, 1, 1), (1, 8, 1), (1, 1, 16), (1, 8, 16)]),
        ((16, 44, 80), (16, 24, 16), ((8, 4, 8), (4, 4, 8)), [(1, 1, 1), (1, 8, 1), (1, 1, 16), (1, 8, 16)]),
    ],
)
def test_front_is_the_strides_of_the_paper(grid, window, tiles, published):
    found = optimize(
        "gna", "b200", grid=grid, text=0, q_heads=24, params={"window": window}, q_tile=tiles[0], kv_tile=tiles[1],
        vary={"stride": None},
    )  # fmt: skip
    assert strides(found) == set(published)
    assert [c.perfect for c in found.front] == [True] + [False] * (len(published) - 1)
    assert found.unresolved == 0


def test_perfect_setting_of_hunyuan_is_found_among_all_tiles():
    found = optimize("gna", "b200", **HUNYUAN, sparsity=0.91, vary={"stride": None, "tile": None})
    best = found.best
    assert best.perfect
    assert best.params == {"window": (18, 24, 24), "stride": (16, 8, 8)}
    assert best.bound_worst == pytest.approx(11.11, abs=0.01)
    assert found.combinations == 7 * 18 * 24 * 24


def test_default_tiles_of_a100_lose_more_than_half():
    # NATTEN docs/profiler.md: 557 ms by default, 222 ms tuned (2.5 x), with 2x8x4 / 2x8x8 the tuned tiles.
    found = optimize("gna", "a100", **HUNYUAN, vary={"tile": None})
    assert (found.usual.q_tile, found.usual.kv_tile) == ((4, 4, 4), (4, 4, 4))
    assert found.usual.latency_ms > 2 * found.best.latency_ms
    assert not found.usual.perfect
    tuned = next(c for c in found.configurations if (c.q_tile, c.kv_tile) == ((2, 8, 4), (2, 8, 8)))
    assert tuned.perfect
    assert tuned.latency_ms == pytest.approx(found.best.latency_ms, rel=0.01)
    assert found.combinations == 76


def test_better_token_orders_gain_what_attention_gym_measured():
    # attention-gym, pull request 87, on an RTX A6000: 22.7 row-major, 14.02 in blocks, 14.33 along a Morton curve.
    # An RTX 3090 is the same chip with two SMs less, and half the tensor rate: ratios are compared, without the permutation.
    found = optimize(
        "gna", "rtx_3090", grid=(128, 128), text=0, batch=16, q_heads=16, head_dim=64, params={"window": 13}, vary={"order": None}
    )
    ms = {c.params["order"]: c for c in found.configurations}
    assert set(ms) == {"rows", "blocks", "morton", "hilbert"}
    assert ms["rows"].attention_ms / ms["blocks"].attention_ms == pytest.approx(22.7 / 14.02, rel=0.1)
    assert ms["rows"].attention_ms / ms["morton"].attention_ms == pytest.approx(22.7 / 14.33, rel=0.1)
    assert ms["rows"].side_ms == 0 < ms["morton"].side_ms


def test_orders_of_a_mask_of_ones_own(tmp_path):
    grid, token = (64, 64), np.arange(4096)
    near = np.abs(token[:, None] // 64 - token // 64) + np.abs(token[:, None] % 64 - token % 64) <= 5
    np.save(tmp_path / "mask.npy", near)
    file = {"file": str(tmp_path / "mask.npy")}
    found = optimize("mask_file", "h100", params=file, grid=grid, q_heads=8, q_tile=64, kv_tile=64, vary={"order": None})
    visited = {c.params["order"]: c.visited for c in found.configurations}
    assert visited["hilbert"] <= visited["morton"] < visited["rows"]
    assert len({round(c.sparsity, 9) for c in found.configurations}) == 1


# -- the search --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("gpu", "tiles"), [("b200", ((8, 32), (8, 16))), ("a100", ((8, 8), (8, 8)))])
def test_no_configuration_beats_the_front(gpu, tiles):
    spec, call = gpus.load(gpu), {"grid": (24, 32), "text": 0, "q_heads": 40}
    found = optimize(
        "gna", spec, **call, params={"window": (8, 8)}, q_tile=tiles[0], kv_tile=tiles[1], vary={"stride": None, "tile": None}
    )
    for stride in product(range(1, 9), repeat=2):
        asked = question("gna", params={"window": (8, 8), "stride": stride}, **call)
        ms = simulate(asked, spec, q_tile=tiles[0], kv_tile=tiles[1]).stages["side"] * 1e3
        assert any(c.latency_ms <= ms * RESOLUTION and c.shared <= prod(stride) for c in found.front), stride
    assert found.simulated < 64


def test_closed_forms_are_those_of_the_schedules():
    rng = np.random.default_rng(0)
    for _ in range(20):
        grid = tuple(int(n) for n in rng.integers(6, 24, 2))
        window = tuple(int(rng.integers(2, n // 2 + 1)) for n in grid)
        dilation, text = int(rng.integers(1, 3)), int(rng.integers(0, 2)) * 40
        tiles = ((4, 4), (4, 2))
        axes = [Axis(n, w, 1, dilation, False) for n, w in zip(grid, window, strict=True)]
        found = family(axes, [range(1, w + 1) for w in window], tiles, text=text)
        for at in rng.integers(0, len(found.visited), 4):
            stride = tuple(int(s) for s in found.strides[at])
            s = schedule(
                "gna", grid=grid, text=text, window=window, stride=stride, dilation=dilation, q_tile=tiles[0], kv_tile=tiles[1]
            )
            assert (s.visited, s.max_visited, s.mask_free) == (found.visited[at], found.worst[at], found.mask_free[at])
            assert (len(s.row_live), s.kv_tiles) == (found.rows, found.kv_tiles)


def test_no_time_is_below_its_closed_form():
    found = optimize("gna", "b200", **HUNYUAN, sparsity=0.91, vary={"stride": None, "tile": None})
    assert all(c.latency_ms >= c.bound_ms for c in found.configurations)


def test_front_has_no_beaten_candidate():
    rng = np.random.default_rng(1)
    merits = Merit(*rng.integers(0, 12, (3, 300)))
    front = set(front_of(merits).tolist())
    for i in range(300):
        beats = (merits.ms <= merits.ms[i]) & (merits.shared <= merits.shared[i]) & (merits.keys >= merits.keys[i])
        better = (merits.ms < merits.ms[i]) | (merits.shared < merits.shared[i]) | (merits.keys > merits.keys[i])
        if i in front:
            assert not (beats & better).any()
        else:
            assert beats[sorted(front)].any()


def test_windows_at_a_sparsity_are_all_near_it():
    axes = [Axis(n, 1, 1, 1, False) for n in (30, 48, 80)]
    found = windows_of(axes, 0, (0.085, 0.095))
    assert len(found) == len(set(found)) > 1000
    assert all(0.085 <= prod(w) / 115200 <= 0.095 for w in found)


def test_windows_without_a_sparsity_trade_keys_for_time():
    found = optimize(
        "gna", "h100", grid=(64, 64), text=0, q_heads=16, params={"window": (16, 16), "stride": (8, 8)},
        vary={"window": [(16, 16), (24, 24), (32, 32), (40, 40)]},
    )  # fmt: skip
    assert [c.sparsity for c in found.front] == sorted((c.sparsity for c in found.front), reverse=True)
    assert len(found.front) >= 3


def test_blocks_of_another_pattern_can_be_varied():
    found = optimize("moba", "h100", vary={"block": [256, 512]})
    assert {c.params["block"] for c in found.configurations} <= {256, 512}
    assert found.best.latency_ms < found.usual.latency_ms


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"vary": {"strides": None}}, "stride"),
        ({"vary": {"dilation": None}}, "needs values"),
        ({"vary": {"tile": [1]}}, "--q-tile"),
        ({"sparsity": 1.5}, "sparsity"),
        ({"sparsity": 0.99999}, "no window"),
        ({"most": 0}, "most"),
    ],
)
def test_bad_requests_are_refused_in_one_line(arguments, words):
    with pytest.raises(UserError, match=words) as error:
        optimize("gna", "b200", **HUNYUAN, **arguments)
    assert "\n" not in str(error.value)


def test_sparsity_needs_windows():
    with pytest.raises(UserError, match="no window"):
        optimize("radial", "b200", sparsity=0.9)


# -- the command -------------------------------------------------------------------------------------------------------


def test_command_prints_table_and_picture(tmp_path):
    line = ["optimize", "--hw", "b200", "--pattern", "gna", "--grid", "30x48x80", "--sparsity", "0.91", "--vary", "stride"]
    shown = CliRunner().invoke(command, [*line, "-o", str(tmp_path / "a.png")])
    assert shown.exit_code == 0, shown.output
    assert "perfect" in shown.stdout
    assert "16x8x8" in shown.stdout
    assert (tmp_path / "a.png").stat().st_size > 10_000


def test_command_prints_json_and_bars(tmp_path):
    line = ["optimize", "--hw", "b200", "--pattern", "gna", "--vary", "tile", "--json", "-o", str(tmp_path / "a.html")]
    written = CliRunner().invoke(command, line)
    assert written.exit_code == 0, written.output
    answer = json.loads(written.stdout)
    assert answer["schema"] == "simattn.optimize/1"
    assert any(c["front"] and c["perfect"] for c in answer["configurations"])
    assert "latency, ms" in (tmp_path / "a.html").read_text(encoding="utf-8")


@pytest.mark.parametrize(
    "line",
    ["--vary foo", "--vary stride=", "-o front.gif", "--sparsity 2", "--vary border"],
)
def test_command_refuses_in_one_line(line):
    result = CliRunner().invoke(command, ["optimize", "--hw", "b200", "--pattern", "gna", *line.split()])
    assert result.exit_code != 0
    assert result.exception is None or isinstance(result.exception, SystemExit | UserError)
