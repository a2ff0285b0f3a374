"""Forward kernels on the interpreter against float64: shapes, masks, launch orders; and that a wrong kernel is found out."""

import importlib.util
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from simattn.facts import UserError
from simattn.kernels.triton import lists, tokens
from simattn.kernels.triton.configs import ARCHS, Config, find, shipped
from simattn.workloads import Group, Kind, from_bsr, schedule
from simattn.workloads.families import Band, Box, Documents
from simattn.workloads.layout import Tiling, TokenLayout
from simattn.workloads.runs import Runs
from simattn.workloads.schedule import flat_schedule

torch = pytest.importorskip("torch")
triton = pytest.importorskip("triton")
forward = pytest.importorskip("simattn.kernels.triton.forward")
reference = pytest.importorskip("simattn.kernels.triton.reference")

pytestmark = pytest.mark.skipif(
    not forward.INTERPRETED or (triton.__version__ < "3.7" and np.__version__ >= "2.4"),
    reason="triton was imported before these tests, or its interpreter does not know this numpy",
)

ATOL = {torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
"""Rounding of inputs aside (the reference has the same), of the probabilities and of the output, for normal inputs."""


def tensors(seed, batch, q_heads, kv_heads, seq_q, seq_kv, d, dtype):
    generator = torch.Generator().manual_seed(seed)
    shapes = (batch, q_heads, seq_q, d), (batch, kv_heads, seq_kv, d), (batch, kv_heads, seq_kv, d)
    return [torch.randn(shape, generator=generator).to(dtype) for shape in shapes]


def assert_right(q, k, v, got, seen=None, scale=None):
    """Output and LSE against float64."""
    o, lse = got
    want, want_lse = reference.attention(q, k, v, seen, scale=scale)
    assert (o.dtype, o.shape, lse.dtype, lse.shape) == (q.dtype, q.shape, torch.float32, q.shape[:3])
    torch.testing.assert_close(o.double(), want, atol=ATOL[q.dtype], rtol=0)
    torch.testing.assert_close(lse.double(), want_lse, atol=2e-5, rtol=1e-5)


def lower_right(seq_q, seq_kv):
    """The causal mask."""
    return np.arange(seq_kv)[None, :] <= np.arange(seq_q)[:, None] + seq_kv - seq_q


def seen_by(family, layout):
    """A family's mask, token by token."""
    return family.visible(np.arange(layout.query_tokens)[:, None], np.arange(layout.tokens)[None, :], layout)


SHAPES = {
    "one tile": (1, 1, 1, 64, 64, 64),
    "one token": (1, 2, 1, 1, 1, 64),
    "one query": (2, 4, 2, 1, 130, 64),
    "ragged": (2, 2, 2, 77, 203, 64),
    "more queries than keys": (1, 3, 1, 150, 70, 64),
    "grouped heads": (1, 14, 2, 40, 100, 64),
    "128 wide": (1, 2, 1, 100, 131, 128),
    "256 wide": (1, 1, 1, 70, 90, 256),
    "16 wide": (1, 2, 2, 65, 63, 16),
}


@pytest.mark.parametrize("causal", [False, True], ids=["dense", "causal"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
@pytest.mark.parametrize("name", SHAPES)
def test_dense(name, dtype, causal):
    q, k, v = tensors(0, *SHAPES[name], dtype)
    seen = lower_right(q.shape[2], k.shape[2]) if causal else None
    assert_right(q, k, v, forward.attention(q, k, v, causal=causal), seen)


@pytest.mark.parametrize("seed", range(8))
def test_random_shapes_and_blocks(seed):
    draw = np.random.default_rng(seed)
    kv_heads, shared = draw.integers(1, 4, size=2)
    seq_q, seq_kv = draw.integers(1, 180, size=2)
    block_m, block_n = draw.choice([16, 32, 64, 128], size=2)
    dtype = [torch.float16, torch.bfloat16][seed % 2]
    q, k, v = tensors(seed, 1 + seed % 2, int(kv_heads * shared), int(kv_heads), int(seq_q), int(seq_kv), 64, dtype)
    causal, scale = bool(draw.integers(2)), float(draw.uniform(0.02, 0.5))
    config = Config(block_m=int(block_m), block_n=int(block_n), tma=bool(draw.integers(2)), persistent=bool(draw.integers(2)))
    got = forward.attention(q, k, v, causal=causal, scale=scale, config=config)
    assert_right(q, k, v, got, lower_right(seq_q, seq_kv) if causal else None, scale)


LAUNCHES = {
    "longest first": {"order": "longest_first"},
    "persistent": {"persistent": True},
    "persistent, longest first": {"persistent": True, "order": "longest_first"},
    "descriptors": {"tma": True},
    "all": {"persistent": True, "order": "longest_first", "tma": True},
}


@pytest.mark.parametrize("launch", LAUNCHES)
@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
def test_launches_differ_in_nothing_but_order(sparse, launch):
    q, k, v = tensors(1, 2, 4, 2, 150, 170, 64, torch.float16)
    work = schedule("causal", seq_q=150, seq_kv=170, q_tile=32, kv_tile=64) if sparse else None
    plain = Config(block_m=32, block_n=64)
    want = forward.attention(q, k, v, work, causal=True, config=plain)
    got = forward.attention(q, k, v, work, causal=True, config=plain.with_(**LAUNCHES[launch]))
    assert all((mine == theirs).all() for mine, theirs in zip(got, want, strict=True))
    assert_right(q, k, v, want, lower_right(150, 170))


def test_strides_are_free():
    """Tokens before heads, as models have them; and tensors that no descriptor can describe."""
    q, k, v = (x.transpose(1, 2).contiguous().transpose(1, 2) for x in tensors(2, 2, 4, 2, 50, 90, 64, torch.float16))
    assert_right(q, k, v, forward.attention(q, k, v))
    wide = torch.randn(2, 2, 90, 67, generator=torch.Generator().manual_seed(0)).half()
    shifted = wide[..., 3:]
    assert_right(q, shifted, v, forward.attention(q, shifted, v, config=Config(block_m=64, block_n=32, tma=True)))


BANDS = {
    "dense": Band(),
    "causal": Band(causal=True),
    "window": Band(window=40),
    "two sides": Band(window=(30, 9)),
    "sinks": Band(window=(30, 9), sinks=20),
    "causal and sinks": Band(window=33, sinks=20),
    "causal, window of two numbers": Band(window=(30, 9), causal=True),
    "global": Band(window=(16, 16), global_tokens=20),
}


@pytest.mark.parametrize("bits", [False, True], ids=["computed", "bits"])
@pytest.mark.parametrize("name", BANDS)
def test_bands(name, bits):
    band, layout = BANDS[name], TokenLayout(grid=(150,), queries=101)
    work = band.schedule(layout, Tiling(q=(32,), kv=(64,) if bits else (32,)))
    q, k, v = tensors(3, 1, 2, 1, 101, 150, 64, torch.float16)
    mask = (lambda q, k: band.visible(q, k, layout)) if bits else band
    assert_right(q, k, v, forward.attention(q, k, v, work, mask=mask), seen_by(band, layout))


def test_documents():
    family, layout = Documents(lengths=(50, 14, 1, 63, 64)), TokenLayout(grid=(192,))
    work = family.schedule(layout, Tiling(q=(32,), kv=(32,)))
    q, k, v = tensors(4, 1, 2, 2, 192, 192, 64, torch.bfloat16)
    got = forward.attention(q, k, v, work, mask=lambda q, k: family.visible(q, k, layout))
    assert_right(q, k, v, got, seen_by(family, layout))


def blocks(seed, rows, columns, density):
    """A random block mask, with an empty row and a full one."""
    kept = np.random.default_rng(seed).random((rows, columns)) < density
    kept[1], kept[2] = False, True
    return kept


def listed(kept, q_tile, kv_tile, seq_q, seq_kv, **more):
    indptr = np.concatenate([[0], np.cumsum(kept.sum(1))])
    return from_bsr(indptr, np.nonzero(kept)[1], q_tile=q_tile, kv_tile=kv_tile, seq_q=seq_q, seq_kv=seq_kv, **more)


def spread(kept, q_tile, kv_tile, seq_q, seq_kv):
    """A block mask, token by token."""
    return kept.repeat(q_tile, 0).repeat(kv_tile, 1)[:seq_q, :seq_kv]


@pytest.mark.parametrize("config", [None, "all"])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["fp16", "bf16"])
def test_random_blocks_with_ragged_ends_and_an_empty_row(dtype, config):
    kept = blocks(5, 5, 4, 0.4)
    q, k, v = tensors(5, 1, 4, 2, 150, 203, 64, dtype)
    launch = config and Config(block_m=32, block_n=64, **LAUNCHES[config])
    o, lse = forward.attention(q, k, v, listed(kept, 32, 64, 150, 203), config=launch)
    assert_right(q, k, v, (o, lse), spread(kept, 32, 64, 150, 203))
    assert (o[:, :, 32:64] == 0).all()
    assert (lse[:, :, 32:64] == float("-inf")).all()


@pytest.mark.parametrize("order", ["ascending", "longest_first"])
@pytest.mark.parametrize("per_item", [False, True], ids=["heads", "items and heads"])
def test_heads_have_lists_of_their_own(per_item, order):
    copies = (1, 2, 1) if not per_item else (3, 1, 4)
    batch, heads = 2, 4
    masks = [blocks(seed, 4, 3, 0.5) for seed in range(3)]
    parts = [listed(kept, 32, 32, 120, 90) for kept in masks]
    work = parts[0].__class__(
        q_tile=32, kv_tile=32, seq_q=120, seq_kv=90, row_live=np.concatenate([p.row_live for p in parts]),
        runs=Runs.stack([p.runs for p in parts]), groups=tuple(Group(4 * i, 4, n) for i, n in enumerate(copies)),
        buffers=parts[0].buffers, pairs_per_copy=tuple(p.pairs for p in parts),
    )  # fmt: skip
    q, k, v = tensors(6, batch, heads, 2, 120, 90, 64, torch.float16)
    seen = np.stack([spread(kept, 32, 32, 120, 90) for kept, n in zip(masks, copies, strict=True) for _ in range(n)])
    seen = seen.reshape(batch, heads, 120, 90) if per_item else seen[None]
    assert_right(q, k, v, forward.attention(q, k, v, work, config=Config(block_m=32, block_n=32, order=order)), seen)


def test_runs_that_begin_and_end_inside_tiles():
    """Slashes and gaps: two runs in one tile, runs that touch, visits on the grid and off it."""
    runs = Runs(np.array([0, 0, 0, 2, 2]), np.array([3, 20, 70, 0, 40]), np.array([9, 44, 40, 40, 100]), np.zeros(5, np.uint8), 3)
    seen = np.zeros((90, 140), bool)
    for row, start, stop in zip(runs.row, runs.start, runs.stop, strict=True):
        seen[row * 32 : row * 32 + 32, start:stop] = True
    q, k, v = tensors(7, 1, 2, 1, 90, 140, 64, torch.float16)
    for aligned in (True, False):
        work = flat_schedule(runs, q_tile=32, kv_tile=32, seq_q=90, seq_kv=140, aligned=aligned)
        assert_right(q, k, v, forward.attention(q, k, v, work), seen)


def test_visits_are_those_of_the_schedule():
    for band, tiles in ((Band(causal=True), (64, 32)), (Band(window=100, sinks=40), (32, 64)), (Band(), (64, 64))):
        work = band.schedule(TokenLayout(grid=(500,)), Tiling(q=tiles[:1], kv=tiles[1:]))
        found = lists.csr(work, band)
        assert found.visits_of_rows().tolist() == work.counts.visited.tolist()
        assert np.diff(found.full_first).tolist() == work.counts.full.tolist()
        assert (np.diff(found.visits_of_rows()[found.longest_first(1)]) <= 0).all()


def test_boxes_of_a_permuted_grid():
    """Neighborhood attention with tokens permuted into tiles: bits say what is seen, padding included."""
    grid, family = (9, 13), Box(window=(5, 7), stride=(2, 1))
    layout, q_tile, kv_tile = TokenLayout(grid=grid), (4, 8), (4, 8)
    work = family.schedule(layout, Tiling(q=q_tile, kv=kv_tile))
    place = tokens.boxes(grid, q_tile)
    assert sorted(place[place >= 0].tolist()) == list(range(9 * 13))

    def visible(q, k):
        at_q, at_k = place[q], place[k]
        return (at_q >= 0) & (at_k >= 0) & family.visible(np.maximum(at_q, 0), np.maximum(at_k, 0), layout)

    q, k, v = tensors(8, 1, 2, 1, 9 * 13, 9 * 13, 64, torch.float16)
    boxed = [tokens.gather_tokens(x, place) for x in (q, k, v)]
    got = [tokens.scatter_tokens(x, place) for x in forward.attention(*boxed, work, mask=visible)]
    assert_right(q, k, v, got, seen_by(family, layout))


OWNER = torch.arange(3).repeat_interleave(torch.tensor([100, 92, 64]))
PEERS = {
    "causal and sinks": (BANDS["causal and sinks"], lambda b, h, q, k: (k <= q) & ((q - k < 33) | (k < 20))),
    "documents": (Documents(lengths=(100, 92, 64)), lambda b, h, q, k: (k <= q) & (OWNER[q] == OWNER[k])),
}


@pytest.mark.filterwarnings("ignore:flex_attention called without torch.compile")
@pytest.mark.parametrize("name", PEERS)
def test_flex_attention_gives_the_same(name):
    """PyTorch's own block-sparse attention, with the blocks that this schedule exports and a mask of its own."""
    flex = pytest.importorskip("torch.nn.attention.flex_attention")
    (family, mask_mod), layout = PEERS[name], TokenLayout(grid=(256,))
    work = family.schedule(layout, Tiling(q=(64,), kv=(64,)))
    exported = work.to_block_mask()
    exported.mask_mod = mask_mod
    q, k, v = tensors(9, 1, 4, 2, 256, 256, 64, torch.float16)
    want = flex.flex_attention(q.float(), k.float(), v.float(), block_mask=exported, enable_gqa=True)
    mask = family if isinstance(family, Band) else lambda q, k: family.visible(q, k, layout)
    o, _ = forward.attention(q, k, v, work, mask=mask)
    torch.testing.assert_close(o.float(), want, atol=2e-3, rtol=0)


# -- that these comparisons find a wrong kernel ------------------------------------------------------------------------

MUTANTS = {
    "causal diagonal": ("forward", "seen = at <= tl.minimum(first", "seen = at < tl.minimum(first"),
    "ragged end": ("forward", "seen = at < seq_kv", "seen = at <= seq_kv"),
    "last whole tile": ("forward", "first + offset + 1), 0)", "first + offset + BLOCK_N), 0)"),
    "end of the causal loop": ("forward", "first + offset + BLOCK_M), 0)", "first + offset + BLOCK_M - 1), 0)"),
    "window": ("forward", ">= position - left) &", "> position - left) &"),
    "window of two sides": ("forward", "tl.where(sink, FAR, at) >= ", "tl.where(sink, FAR, at) > "),
    "window ahead": ("forward", "tl.minimum(position + right, ", "tl.minimum(position + right - 1, "),
    "sinks": ("forward", "tl.where(at < sinks", "tl.where(at <= sinks"),
    "sinks of two sides": ("forward", "sink = at < tl", "sink = at <= tl"),
    "diagonal of a visit": ("forward", "return at <= tl.minimum(position, ", "return at < tl.minimum(position, "),
    "end of a masked visit": ("forward", "tl.minimum(position, stop - 1))\n", "tl.minimum(position, stop - 2))\n"),
    "bit": ("forward", ">> (column % 32)", ">> ((column + 1) % 32)"),
    "word": ("forward", "row * (BLOCK_N // 32) + column // 32", "row + column // 32"),
    "entry of the bits": ("forward", "tl.cast(entry, tl.int64) *", "tl.cast(entry + 1, tl.int64) *"),
    "end of a run": ("forward", "return at < stop", "return at <= stop"),
    "tile": ("forward", "key = tl.load(full_key + entry)", "key = tl.load(full_key + entry) + BLOCK_N"),
    "visit": ("forward", "tl.range(tl.load(full_first + row), ", "tl.range(tl.load(full_first + row) + 1, "),
    "list of a head": ("forward", "row += tl.load(heads + copy % LISTS)", "row += tl.load(heads + (copy + 1) % LISTS)"),
    "kv head": ("forward", "k_batch + tl.cast(head // SHARED", "k_batch + tl.cast(head % SHARED"),
    "scale": ("forward", "scale / math.log(2)", "scale * 1.01 / math.log(2)"),
    "rescaling": ("steps", "acc = acc * shrink[:, None]", "acc = acc * 1.0"),
    "empty rows": ("steps", 'base = tl.where(new_top == float("-inf"), 0.0, new_top)', "base = new_top"),
    "base of LSE": ("steps", "* LOG2, mask=live", "* 1.0, mask=live"),
    "row of a store": ("steps", "live = row < seq_q", "live = row < seq_q - 1"),
    "tile of a visit": ("lists", "found.tile.astype(np.int64)", "(found.tile.astype(np.int64) + 1)"),
    "end of a visit": ("lists", "np.minimum(begin + tile, runs.stop[at])", "np.minimum(begin + tile, runs.stop[at] + 1)"),
    "first visit of a row": ("lists", "np.arange(rows + 1))", "np.arange(rows + 1) + 1)"),
}  # fmt: skip


def small_panel(kernels):
    """Small calls that together reach every line that a mutant changes."""
    causal = Config(block_m=32, block_n=16)
    q, k, v = tensors(10, 1, 2, 1, 50, 41, 16, torch.float16)
    assert_right(q, k, v, kernels.attention(q, k, v, causal=True, config=causal), lower_right(50, 41))
    assert_right(q, k, v, kernels.attention(q, k, v, config=causal))
    q, k, v = tensors(10, 1, 1, 1, 50, 51, 16, torch.float16)
    assert_right(q, k, v, kernels.attention(q, k, v, causal=True, config=causal), lower_right(50, 51))
    layout, tiles = TokenLayout(grid=(75,)), Tiling(q=(32,), kv=(32,))
    q, k, v = tensors(11, 1, 3, 1, 75, 75, 16, torch.float16)
    for band in (Band(window=(30, 5), sinks=9), Band(window=20, sinks=9), Band(causal=True)):
        assert_right(q, k, v, kernels.attention(q, k, v, band.schedule(layout, tiles), mask=band), seen_by(band, layout))
    family, wide = Documents(lengths=(40, 3, 32)), Tiling(q=(16,), kv=(64,))
    got = kernels.attention(q, k, v, family.schedule(layout, wide), mask=lambda q, k: family.visible(q, k, layout))
    assert_right(q, k, v, got, seen_by(family, layout))
    masks = [blocks(seed, 5, 5, 0.5) for seed in range(3)]
    parts = [listed(kept, 16, 16, 75, 75) for kept in masks]
    work = parts[0].__class__(
        q_tile=16, kv_tile=16, seq_q=75, seq_kv=75, row_live=np.concatenate([p.row_live for p in parts]),
        runs=Runs.stack([p.runs for p in parts]), groups=tuple(Group(5 * i, 5, 1) for i in range(3)),
        buffers=parts[0].buffers, pairs_per_copy=tuple(p.pairs for p in parts),
    )  # fmt: skip
    assert_right(q, k, v, kernels.attention(q, k, v, work), np.stack([spread(m, 16, 16, 75, 75) for m in masks])[None])


def mutant(tmp_path, module, old, new):
    """The forward kernels with one place of their source changed."""
    for name in ("lists", "steps", "forward"):
        text = (Path(forward.__file__).parent / f"{name}.py").read_text(encoding="utf-8")
        if name == module:
            assert old in text
            text = text.replace(old, new)
        text = text.replace("from . import lists\n", "from . import changed_lists as lists\n")
        text = text.replace("from .steps import", "from .changed_steps import")
        path = tmp_path / f"changed_{name}.py"
        path.write_text(text, encoding="utf-8")
        full_name = f"simattn.kernels.triton.changed_{name}"
        spec = importlib.util.spec_from_file_location(full_name, path)
        changed = sys.modules[full_name] = importlib.util.module_from_spec(spec)
        setattr(sys.modules["simattn.kernels.triton"], f"changed_{name}", changed)
        spec.loader.exec_module(changed)
    return changed


def test_the_panel_passes_unchanged(tmp_path):
    small_panel(forward)
    small_panel(mutant(tmp_path, "forward", "import math\n", "import math\n"))


@pytest.mark.parametrize("name", MUTANTS)
@pytest.mark.filterwarnings("ignore:invalid value encountered")
def test_a_mutant_is_found_out(name, tmp_path):
    with pytest.raises((AssertionError, IndexError)):
        small_panel(mutant(tmp_path, *MUTANTS[name]))


# -- what is refused, and what compiles --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"scale": -1.0}, "scale must be positive"),
        ({"mask": Band()}, "a mask needs a schedule"),
        ({"schedule": (100, 90)}, "100 x 90 tokens"),
        ({"schedule": (90, 90), "config": Config(block_m=16, block_n=32)}, "tiles of 32 x 32"),
    ],
)
def test_calls_that_do_not_fit(change, said):
    q, k, v = tensors(0, 1, 2, 1, 90, 90, 64, torch.float16)
    if "schedule" in change:
        seq_q, seq_kv = change["schedule"]
        change = {**change, "schedule": listed(np.ones((-(-seq_q // 32), 3), bool), 32, 32, seq_q, seq_kv)}
    with pytest.raises(UserError, match=said):
        forward.attention(q, k, v, **change)


def test_tensors_that_do_not_fit():
    q, k, v = tensors(0, 1, 2, 1, 90, 90, 64, torch.float16)
    for bad, said in (
        ((q[0], k, v), "batch, heads, tokens"),
        ((q[..., :48], k[..., :48], v[..., :48]), "power of two"),
        ((q.float(), k, v), "fp16 or all bf16"),
        ((q, k.expand(1, 3, 90, 64), v.expand(1, 3, 90, 64)), "kv heads must divide"),
        ((q.transpose(2, 3).contiguous().transpose(2, 3), k, v), "contiguous"),
    ):
        with pytest.raises(UserError, match=said):
            forward.attention(*bad)


def test_schedules_that_the_kernel_cannot_run():
    causal = schedule("causal", seq_q=64, q_tile=32, kv_tile=32)
    for work, mask, said in (
        (causal, None, "needs a mask"),
        (schedule("ragged", lengths=(32, 96), seq_q=128, q_tile=32, kv_tile=32), Band(causal=True), "one length"),
        (listed(np.ones((1, 1), bool), 32, 32, 32, 32, kinds=[Kind.GATHER]), None, "FULL and PARTIAL"),
        (schedule("causal", seq_q=64, q_tile=32, kv_tile=24), lambda q, k: q >= k, "multiple of 32"),
    ):
        with pytest.raises(UserError, match=said):
            lists.csr(work, mask)


@pytest.mark.parametrize("arch", ARCHS)
@pytest.mark.parametrize("kernel", ["dense", "sparse"])
def test_every_architecture_has_configs(kernel, arch):
    for head_dim in (64, 128, 256):
        assert find(kernel, arch, head_dim).tma == (arch in ("sm90", "sm100"))
    for block in ((128, 128), (128, 64), (64, 64)):
        config = find(kernel, arch, 128, block)
        assert (config.block_m, config.block_n) == block


def test_configs_name_what_exists():
    assert {a for e in shipped() for a in e.archs} == set(ARCHS)
    assert find("dense", "sm86", 128) == find("dense", "sm89", 128)
    with pytest.raises(UserError, match="no config"):
        find("dense", "sm75", 128)


COMPILE = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from simattn.kernels.triton import builds
build = builds.signature("sparse_span", "sm90", 64)
source = ASTSource(fn=build["fn"], signature=build["signature"], constexprs=build["constexprs"], attrs=build["attrs"])
print("cubin" in triton.compile(source, target=GPUTarget("cuda", 90, 32), options=build["options"]).asm)
"""


def test_builds_compile_without_a_gpu(tmp_path):
    import os

    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True, check=False)
    assert done.stdout.strip() == "True", done.stderr[-2000:]
