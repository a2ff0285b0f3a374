"""Generalized neighborhood attention against vectors of known answers, published bounds and brute force."""

import hashlib
from math import prod

import numpy as np
import pytest
from simattn.facts import UserError
from simattn.simulator.bounds import bounds
from simattn.workloads import schedule
from simattn.workloads.families import Box
from simattn.workloads.layout import Tiling, TokenLayout


def box_of(case):
    return Box(**{k: tuple(case[k]) for k in ("window", "stride", "dilation", "causal") if k in case})


def tiles_of(case, **more):
    return Tiling(q=tuple(case["q_tile"]), kv=tuple(case["kv_tile"]), **more)


def bounds_of(case):
    """Bounds of a published case, and its schedule."""
    grid = tuple(case["layout"])
    sparse = box_of(case).schedule(TokenLayout(grid=grid), tiles_of(case))
    dense = schedule("dense", seq_q=prod(grid), q_tile=sparse.q_tile, kv_tile=sparse.kv_tile)
    return bounds([sparse], dense), sparse


def end_to_end(share, speedup):
    return 1 / (1 - share + share / speedup)


def test_one_axis(oracle):
    cases = oracle("gna_golden_axis")
    assert len(cases) == 200
    for case in cases:
        family, layout = Box(window=case["W"], stride=case["S"], causal=case["causal"]), TokenLayout(grid=(case["L"],))
        start, end = family.axes(layout)[0].window_of(np.arange(case["L"]))
        static = family.schedule(layout, Tiling(q=(case["tq"],), kv=(case["tk"],)))
        dynamic = family.schedule(layout, Tiling(q=(case["tq"],), kv=(case["tk"],), dynamic_kv=True))
        assert {
            "starts": start.tolist(),
            "ends": end.tolist(),
            "first": (static.runs.start[static.runs.indptr[:-1]] // case["tk"]).tolist(),
            "visited": static.counts.visited.tolist(),
            "full": static.counts.full.tolist(),
            "dyn": dynamic.counts.visited.tolist(),
            "kernel_predicate": static.mask_free,
        }.items() <= case.items()


def test_whole_cases(oracle):
    cases = oracle("gna_golden_multidim")
    assert len(cases) == 75
    for case in cases:
        s = box_of(case).schedule(TokenLayout(grid=tuple(case["layout"])), tiles_of(case))
        got = {"q_tiles": s.q_tiles, "pairs": s.pairs, "visited": s.visited, "full": s.full, "maxvis": s.max_visited}
        assert got.items() <= case.items()


def test_whole_cases_by_brute_force(oracle, same):
    for case in oracle("gna_golden_multidim"):
        if prod(case["layout"]) <= 400:
            same(box_of(case), TokenLayout(grid=tuple(case["layout"])), tiles_of(case))


def test_named_cases(oracle):
    for case in oracle("visual_gna")["cases"]:
        layout = TokenLayout(grid=tuple(case["shape"]))
        s = box_of(case).schedule(layout, tiles_of(case))
        got = {
            "allowed_pairs": s.pairs,
            "n_q_tiles": s.q_tiles,
            "n_kv_tiles": s.kv_tiles,
            "tiles_static_box": s.visited,
            "tiles_dynamic_kv": box_of(case).schedule(layout, tiles_of(case, dynamic_kv=True)).visited,
            "fully_block_sparse": s.mask_free,
            "kv_tiles_worst_q_tile": s.max_visited,
            "sha256_static": hashlib.sha256(s.to_mask()[0].astype(np.uint8).tobytes()).hexdigest(),
        }
        assert got.items() <= case.items()
        if "tiles" in case:
            assert np.argwhere(s.to_mask()[0]).tolist() == case["tiles"]
        # Here the vectors ignore padded keys, see the test below.
        if case["name"] != "tiny_2d_uneven":
            assert s.full == case["tiles_full_unmasked"]


def test_full_tiles_with_padded_keys(oracle, same):
    """A kernel masks the padding of a tile, so a tile with padded keys is never full; these vectors say otherwise."""
    case = next(c for c in oracle("visual_gna")["cases"] if c["name"] == "tiny_2d_uneven")
    family, (height, width) = box_of(case), case["shape"]
    (tq_h, tq_w), (tk_h, tk_w) = case["q_tile"], case["kv_tile"]
    index = np.arange(height * width).reshape(height, width)
    layout = TokenLayout(grid=(height, width))
    real_keys_seen = sum(
        bool(family.visible(q.ravel()[:, None], k.ravel()[None, :], layout).all())
        for q in (index[i : i + tq_h, j : j + tq_w] for i in range(0, height, tq_h) for j in range(0, width, tq_w))
        for k in (index[i : i + tk_h, j : j + tk_w] for i in range(0, height, tk_h) for j in range(0, width, tk_w))
    )
    assert real_keys_seen == case["tiles_full_unmasked"]
    assert same(family, layout, tiles_of(case)).full < real_keys_seen


def test_published_speedups_of_the_operation(oracle):
    cases = [c for c in oracle("gna_cases")["cases"] if c["kind"] == "op_bound"]
    assert len(cases) == 3
    for case in cases:
        bound, _ = bounds_of(case)
        assert round(bound.flop, 1) == case["published"]["flopwise"]
        assert round(bound.tile_worst, 1) == case["published"]["sim"]


def test_published_end_to_end_speedups(oracle):
    cases = [c for c in oracle("gna_cases")["cases"] if c["kind"] == "e2e"]
    assert len(cases) == 6
    for case in cases:
        bound, _ = bounds_of(case)
        share = case["attn_share_of_e2e"] * (1 - case["dense_steps"] / case["total_steps"])
        # The authors rounded the speedup of the operation to one decimal in some rows.
        flop = {round(end_to_end(share, s), 2) for s in (bound.flop, round(bound.flop, 1))}
        assert case["published"]["e2e_flopwise"] in flop
        assert end_to_end(share, bound.tile_worst) == pytest.approx(case["published"]["e2e_nattensim"], abs=0.02)


def end_to_end_rows(part, title):
    """Window, stride, computed and published speedup of the rows of a table, in either of the two forms that they have."""
    if "rows" in part:
        yield from ((row["window"], row["stride"], row["computed"], row["published"]) for row in part["rows"])
    else:
        window = [int(n) for n in title.partition("window (")[2].rstrip(")").split(", ")]
        yield from ((window, *row) for row in zip(part["strides"], part["computed"], part["published"], strict=True))


def test_published_worst_and_mean_tile_bounds(oracle):
    """The published bounds are those of the worst q tile; the mean q tile does not reproduce them."""
    grids, found = {"hunyuan": (30, 48, 80), "cosmos": (16, 44, 80), "flux": (256, 256)}, 0
    for title, part in oracle("visual_published_checks")["nattensim_e2e"].items():
        model, share, kind = title.split()[:3]
        for window, stride, computed, published in end_to_end_rows(part, title):
            found += 1
            case = {"layout": grids[model], "window": window, "stride": stride} | part
            bound, _ = bounds_of(case)
            speedup = bound.tile_worst if kind == "worst" else bound.tile_mean
            total = end_to_end(float(share.partition("=")[2]), speedup)
            assert round(total, 3) == computed
            assert total == pytest.approx(published, abs=part["max_err"] + 5e-4)
    assert found == 92


def test_published_shares_of_full_and_masked_tiles(oracle):
    """Of neighborhood attention under tiles, as the authors of sliding tiles counted them: without borders, we with them."""
    case = oracle("visual_published_checks")["sta_table1_tiled_natten_11"]
    s = Box(window=11).schedule(TokenLayout(grid=(48, 48, 48)), Tiling(q=(4, 4, 4), kv=(4, 4, 4)))
    assert [round(n / s.q_tiles**2, 6) for n in (s.full, s.partial)] == [case["dense"], case["mixed"]]
    full, seen = (2 * ((11 + 1) // 8) - 1) ** 3 / 12**3, (2 * -(-(11 - 1) // 8) + 1) ** 3 / 12**3
    assert [round(full, 4), round(seen - full, 4)] == pytest.approx([*case["published"].values()], abs=1.5e-4)


def test_published_density_of_attention_gym(oracle):
    case = oracle("visual_published_checks")["attention_gym_natten_128x128_w13_b128"]
    s = Box(window=13, order="rows").schedule(TokenLayout(grid=(128, 128)), Tiling(q=(128,), kv=(128,)))
    density = s.visited / (s.q_tiles * s.kv_tiles)
    assert (round(density, 6), round(density, 4)) == (case["density"], case["published"])


def test_published_sparsity(oracle):
    cases = [c for c in oracle("gna_cases")["cases"] if c["kind"] == "sparsity"]
    assert len(cases) == 11
    for case in cases:
        axes = len(case["layout"])
        tile = {"q_tile": (8, 4, 8)[-axes:], "kv_tile": (4, 4, 8)[-axes:]}
        bound, _ = bounds_of(case | tile)
        published = case["published"]["sparsity_pct"]
        digits = len(str(published).partition(".")[2])
        assert round(100 * (1 - 1 / bound.flop), digits) == pytest.approx(published, abs=10**-digits / 2)


@pytest.mark.parametrize(("q_tile", "kv_tile"), [((8, 4, 8), (4, 4, 8)), ((4, 4, 8), (4, 4, 8))])
def test_cosmos2_patterns_need_no_mask_under_these_tiles(oracle, q_tile, kv_tile):
    cases = [c for c in oracle("gna_cases")["cases"] if c["id"].startswith("cosmos2")]
    got = [bounds_of(c | {"q_tile": q_tile, "kv_tile": kv_tile}) for c in cases]
    assert [s.mask_free and s.full == s.visited for _, s in got] == [True] * 5
    assert [round(b.tile_worst, 1) for b, _ in got] == [55.0, 18.3, 12.2, 4.4, 2.2]


def test_a_bad_tile_costs_cosmos2_most_of_its_bound(oracle):
    case = next(c for c in oracle("gna_cases")["cases"] if c["id"].startswith("cosmos2"))
    bound, _ = bounds_of(case | {"q_tile": (2, 8, 8), "kv_tile": (2, 8, 8)})
    # Only padded keys are wasted, and each q tile wastes as many: the worst-tile bound does not see it.
    assert (bound.tile_worst, bound.tile_mean) == (55, 13.75)


def test_least_stride_that_needs_no_mask(oracle):
    case = next(c for c in oracle("gna_cases")["cases"] if c["kind"] == "min_perfect_stride")
    (length,), (window,) = case["layout"], case["window"]
    layout = TokenLayout(grid=(length,))
    for (q,), (kv,) in case["tiles"]:
        perfect = [s for s in range(1, window + 1) if Box(window=window, stride=s).axes(layout)[0].block_sparse(q, kv, False)]
        least = case["published"]["min_stride"]
        assert perfect[0] == least
        assert Box(window=window, stride=least).schedule(layout, Tiling(q=(q,), kv=(kv,))).mask_free


def test_mask_free_schedules_have_no_partial_tile():
    """Where NATTEN's test passes, every visited tile is full. (It is unsound for a q tile of 1, which no kernel has.)"""
    rng, found = np.random.default_rng(1), 0
    for _ in range(3000):
        tq, tk = (int(2 ** rng.integers(least, 4)) for least in (1, 0))
        length, window = int(tk * rng.integers(1, 12)), int(tk * rng.integers(1, 12))
        stride = int(min(tq * rng.integers(1, 6), window))
        if window <= length:
            s = Box(window=window, stride=stride).schedule(TokenLayout(grid=(length,)), Tiling(q=(tq,), kv=(tk,)))
            assert not s.mask_free or s.full == s.visited
            found += s.mask_free
    assert found > 100


def test_flat_tiles_waste_most_of_the_sparsity(oracle):
    for case in oracle("visual_misc")["row_major_1d_tiling"]:
        family = Box(window=tuple(case["window"]), stride=tuple(case["stride"]), order="rows")
        assert family.mask_class() == "element"
        s = family.schedule(TokenLayout(grid=tuple(case["shape"])), Tiling(q=(case["block"],), kv=(case["block"],)))
        assert (s.q_tiles, s.visited) == (case["n_blocks"], case["visited"])
        assert hashlib.sha256(s.to_mask()[0].astype(np.uint8).tobytes()).hexdigest() == case["sha256"]
        density = s.visited / s.q_tiles**2
        ideal = s.pairs / prod(case["shape"]) ** 2
        assert (round(density, 6), round(ideal, 6)) == (case["density"], case["ideal_density"])
        assert round(1 - s.pairs / s.tile_area, 4) == case["waste"]


def test_layers_of_cosmos_predict2(oracle):
    """Counts of each kind of layer, and the mean of the layers of both models (one of the 14B's layers is dense)."""
    case = oracle("visual_cosmos2_gna")
    for tiles, q, kv in zip(case["counts"], ((4, 4, 8), (8, 4, 8)), ((4, 4, 8), (4, 4, 8)), strict=True):
        grid = (tiles["T"], 44, 80)
        density = {"dense": 1.0}
        for kind, row in tiles["types"].items():
            window = tuple(n if w < 0 else w for w, n in zip(row["params"]["w"], grid, strict=True))
            family = Box(window=window, stride=tuple(row["params"]["s"]), dilation=tuple(row["params"]["d"]))
            s = family.schedule(TokenLayout(grid=grid), Tiling(q=q, kv=kv))
            dense = prod(-(-n // t) for n, t in zip(grid, q, strict=True)) * prod(
                -(-n // t) for n, t in zip(grid, kv, strict=True)
            )
            assert (s.visited, prod(row["params"]["d"]), dense) == (row["tiles"], row["groups"], row["dense_tiles"])
            assert s.mask_free
            density[kind] = s.visited / dense
            assert (round(density[kind], 5), round(s.pairs / prod(grid) ** 2, 5)) == (row["density_tiles"], row["density_pairs"])
        for model in ("2B", "14B"):
            layers = [density[kind] for kind in case[f"layers_{model}"]]
            assert round(sum(layers) / len(layers), 5) == tiles[f"mean_density_{model}"]


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("seed", range(20))
def test_windows_cut_at_the_border_equal_brute_force(axes, seed, same):
    """As of zero-padded borders: the window may even be longer than the grid."""
    rng = np.random.default_rng([axes, seed, 3])
    grid = tuple(int(n) for n in rng.integers(1, {1: 60, 2: 14, 3: 7}[axes], axes))
    window = tuple(int(n) for n in rng.integers(1, 14, axes))
    stride = tuple(int(rng.integers(1, w + 1)) for w in window)
    family = Box(window=window, stride=stride, border="cut")
    tiles = [tuple(int(n) for n in rng.integers(1, 6, axes)) for _ in range(2)]
    same(family, TokenLayout(grid=grid), Tiling(q=tiles[0], kv=tiles[1]))
    if axes > 1:
        same(family, TokenLayout(grid=grid), Tiling(q=(int(rng.integers(1, 30)),), kv=(int(rng.integers(1, 30)),)))


def test_halos_and_zero_padding():
    """HaloNet: blocks of 8 see 3 tokens more on each side. SASA: 7 x 7 keys, fewer at the border."""
    i = np.arange(32)
    halo = Box(window=14, stride=8, border="cut").axes(TokenLayout(grid=(32,)))[0]
    assert [n.tolist() for n in halo.window_of(i[::8])] == [[0, 5, 13, 21], [11, 19, 27, 32]]
    sasa = Box(window=7, border="cut").axes(TokenLayout(grid=(32,)))[0]
    assert [n.tolist() for n in sasa.window_of(i[:5])] == [[0, 0, 0, 0, 1], [4, 5, 6, 7, 8]]
    inside = Box(window=7).axes(TokenLayout(grid=(32,)))[0]
    assert inside.pairs() - sasa.pairs() == 2 * (3 + 2 + 1)


def random_box(rng, axes, *, dilated, causal=True):
    """A small box on a small grid, whose keys a brute force can write out."""
    longest = {1: 60, 2: 14, 3: 8}[axes]
    grid = tuple(int(n) for n in rng.integers(1, longest, axes))
    dilation = tuple(int(rng.integers(1, min(n, 4) + 1)) if dilated else 1 for n in grid)
    window = tuple(int(rng.integers(1, n // d + 1)) for n, d in zip(grid, dilation, strict=True))
    stride = tuple(int(rng.integers(1, w + 1)) for w in window)
    causal_axes = tuple(bool(causal and c) for c in rng.integers(0, 3, axes) == 0)
    return Box(window=window, stride=stride, dilation=dilation, causal=causal_axes), TokenLayout(grid=grid)


@pytest.mark.parametrize("axes", [1, 2, 3])
@pytest.mark.parametrize("seed", range(40))
def test_boxes_equal_brute_force(axes, seed, same):
    rng = np.random.default_rng([axes, seed])
    family, layout = random_box(rng, axes, dilated=seed % 2 == 1)
    q, kv = (tuple(int(n) for n in rng.integers(1, 7, axes)) for _ in range(2))
    same(family, layout, Tiling(q=q, kv=kv))


@pytest.mark.parametrize("axes", [2, 3])
@pytest.mark.parametrize("seed", range(40))
def test_flat_tiles_equal_brute_force(axes, seed, same):
    rng = np.random.default_rng([axes, seed, 7])
    family, layout = random_box(rng, axes, dilated=False)
    same(family, layout, Tiling(q=(int(rng.integers(1, 40)),), kv=(int(rng.integers(1, 40)),)))


@pytest.mark.parametrize("seed", range(10))
def test_dynamic_tiles_need_the_span_of_the_window(seed):
    rng = np.random.default_rng([seed, 13])
    family, layout = random_box(rng, 1, dilated=False)
    q, kv = (int(n) for n in rng.integers(1, 9, 2))
    s = family.schedule(layout, Tiling(q=(q,), kv=(kv,), dynamic_kv=True))
    i = np.arange(layout.tokens)
    seen = family.visible(i[:, None], i[None, :], layout)
    spans = [np.flatnonzero(seen[t : t + q].any(0)) for t in range(0, layout.tokens, q)]
    assert s.counts.visited.tolist() == [-(-(span[-1] + 1 - span[0]) // kv) for span in spans]
    with pytest.raises(UserError, match="no grid of blocks exists"):
        s.to_mask()


def test_text_is_seen_by_every_query_of_the_grid():
    family, tiling = Box(window=(4, 4)), Tiling(q=(4, 4), kv=(4, 4))
    without, with_text = (family.schedule(TokenLayout(grid=(8, 12), text=t), tiling) for t in (0, 20))
    assert with_text.pairs == without.pairs + 96 * 20
    assert with_text.visited == without.visited + with_text.q_tiles * 2
    assert with_text.full == without.full + with_text.q_tiles
    assert with_text.to_mask()[0, :, -2:].all()
    assert [b.name for b in with_text.buffers] == ["kv", "text"]
    assert (with_text.seq_q, with_text.seq_kv) == (96, 116)


def test_tokens_are_padded_to_whole_tiles_of_every_dilation_group():
    layout, tiling = TokenLayout(grid=(30, 48, 80)), Tiling(q=(4, 8, 8), kv=(2, 8, 8))
    assert Box(window=3).permuted(layout, tiling) == (32 * 48 * 80, 115200)
    dilated = Box(window=3, dilation=(1, 4, 1))
    assert dilated.permuted(layout, tiling) == (32 * 64 * 80, 30 * 64 * 80)
    assert dilated.needs_permutation(layout, tiling)
    assert not dilated.needs_permutation(layout, Tiling(q=(128,), kv=(128,)))
    line = TokenLayout(grid=(64,))
    assert not Box(window=8).needs_permutation(line, Tiling(q=(8,), kv=(8,)))
    assert Box(window=8, dilation=2).needs_permutation(line, Tiling(q=(8,), kv=(8,)))


@pytest.mark.parametrize(
    ("family", "layout", "tile", "message"),
    [
        (Box(window=(17, 4)), TokenLayout(grid=(16, 16)), (4, 4), "window x dilation must be at most the grid"),
        (Box(window=(8, 4), dilation=(3, 1)), TokenLayout(grid=(16, 16)), (4, 4), "got 8 x 3 on axis 0 of 16 tokens"),
        (Box(window=(4, 4), stride=(5, 1)), TokenLayout(grid=(16, 16)), (4, 4), "stride must be at most the window"),
        (Box(window=4, dilation=2, border="cut"), TokenLayout(grid=(16,)), (4,), "neither dilation nor causal"),
        (Box(window=4, causal=True, border="cut"), TokenLayout(grid=(16,)), (4,), "neither dilation nor causal"),
        (Box(window=(4, 4, 4)), TokenLayout(grid=(16, 16)), (4, 4), "window must have one number or one per axis"),
        (Box(window=4), TokenLayout(grid=(16, 16)), (4, 4, 4), "q_tile and kv_tile must have one number or one per axis"),
        (Box(window=4, dilation=2), TokenLayout(grid=(16, 16)), (16,), "no dilation and no text"),
        (Box(window=4), TokenLayout(grid=(16, 16), text=4), (16,), "no dilation and no text"),
        (Box(window=4), TokenLayout(grid=(16,), queries=4), (4,), "as many queries as keys"),
    ],
)
def test_what_does_not_fit_is_refused(family, layout, tile, message):
    with pytest.raises(UserError, match=message):
        family.schedule(layout, Tiling(q=tile, kv=tile))
