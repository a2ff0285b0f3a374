"""Kernels beside attention in Triton's interpreter, against torch in float64 or bit for bit where nothing is computed."""

import importlib.util
import os
from pathlib import Path

import pytest

os.environ.setdefault("TRITON_INTERPRET", "1")
torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from simattn.kernels.triton import decode, estimate, side  # noqa: E402

HALF, BF16 = torch.float16, torch.bfloat16


def randn(*shape, dtype=HALF):
    """The same numbers for the same shape."""
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape))).to(dtype)


def repeated(x, heads):
    """Heads of keys for each head of queries, in float64."""
    return x.double().repeat_interleave(heads // x.shape[2], 2)


def mutant(tmp_path, module, old, new):
    """The module with one piece of its source changed."""
    source = Path(module.__file__).read_text()
    assert old in source
    path = tmp_path / "mutant.py"
    path.write_text(source.replace(old, new))
    spec = importlib.util.spec_from_file_location("simattn.kernels.triton.mutant", path)
    changed = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(changed)
    return changed


def test_box_order():
    order = side.box_order((4, 6, 5), (2, 3, 4), text=2)
    assert order.dtype == torch.int32
    assert order.shape == (2 * 2 * 2 * 24 + 2,)
    assert sorted(order[order >= 0].tolist()) == list(range(122))
    # The second tile starts at column 4 of the first rows, and has one column of four.
    assert order[24:32].tolist() == [4, -1, -1, -1, 9, -1, -1, -1]
    with pytest.raises(ValueError, match="a size per axis"):
        side.box_order((4, 6), (2,))


@pytest.mark.parametrize(("grid", "tile", "width", "dtype"), [((5, 6), (2, 4), 48, HALF), ((3, 4, 8), (3, 2, 4), 1600, BF16)])
def test_permute(grid, tile, width, dtype):
    order = side.box_order(grid, tile, text=3)
    tokens = int(order.max()) + 1
    x = randn(2, tokens, width, dtype=dtype)
    boxes = side.permute(x, order)
    expected = torch.where((order >= 0)[:, None], x[:, order.clamp(min=0).long()], 0)
    assert torch.equal(boxes, expected)
    assert torch.equal(side.unpermute(boxes, order, tokens), x)


def test_an_order_for_each_head():
    orders = torch.stack([torch.randperm(70, generator=torch.Generator().manual_seed(head)) for head in range(6)]).int()
    x = randn(6, 70, 32)
    sorted_rows = side.permute(x, orders)
    assert torch.equal(sorted_rows, x.gather(1, orders.long()[:, :, None].expand(-1, -1, 32)))
    assert torch.equal(side.unpermute(sorted_rows, orders, 70), x)
    with pytest.raises(ValueError, match="index must be"):
        side.permute(x, orders[:4])


def appended(module=side, page=16, tokens=5, heads=3, dtype=HALF):
    """Check new tokens at the end of ragged sequences, and that nothing else is written."""
    lengths = torch.tensor([0, 14, 33], dtype=torch.int32)
    columns = -(-40 // page)
    table = torch.randperm(3 * columns, generator=torch.Generator().manual_seed(page)).reshape(3, columns).int()
    caches = [torch.zeros(3 * columns, page, heads, d, dtype=dtype) for d in (32, 16)]
    expected = [cache.clone() for cache in caches]
    k, v = randn(3, tokens, heads, 32, dtype=dtype), randn(3, tokens, heads, 16, dtype=dtype)
    for b, length in enumerate(lengths.tolist()):
        for t in range(tokens):
            if (length + t) // page < columns:
                place = table[b, (length + t) // page], (length + t) % page
                expected[0][place], expected[1][place] = k[b, t], v[b, t]
    module.append(k, v, *caches, table, lengths)
    assert torch.equal(caches[0], expected[0])
    assert torch.equal(caches[1], expected[1])


@pytest.mark.parametrize(
    ("page", "tokens", "heads", "dtype"), [(1, 1, 8, BF16), (16, 5, 3, HALF), (64, 3, 1, BF16), (128, 9, 2, HALF)]
)
def test_append(page, tokens, heads, dtype):
    appended(page=page, tokens=tokens, heads=heads, dtype=dtype)


def test_append_drops_what_has_no_page():
    appended(page=8, tokens=12)


def pooled(module=side, tokens=100, block=48, dtype=HALF):
    """Check means of blocks; the last is shorter."""
    x = randn(2, tokens, 3, 32, dtype=dtype)
    expected = torch.stack([part.double().mean(1) for part in x.split(block, 1)], 1)
    torch.testing.assert_close(module.mean_pool(x, block).double(), expected, atol=1e-4, rtol=2**-7 if dtype == BF16 else 2**-10)


@pytest.mark.parametrize(("tokens", "block", "dtype"), [(100, 48, HALF), (64, 64, BF16), (7, 16, HALF), (5, 1, BF16)])
def test_mean_pool(tokens, block, dtype):
    pooled(tokens=tokens, block=block, dtype=dtype)


def scored(module=side, causal=True, dtype=HALF, q_block=4, k_block=8, offset=0, group=2):
    """Check pooled scores, and which blocks of keys a block of queries sees: those where any pair is causal."""
    q, k = randn(2, 70, 2 * group, 32, dtype=dtype), randn(2, 33, 2, 32, dtype=dtype)
    got = module.block_score(q, k, causal=causal, q_block=q_block, k_block=k_block, offset=offset, scale=0.2)
    expected = torch.einsum("bqhd,bkhd->bhqk", q.double(), repeated(k, 2 * group)) * 0.2
    if causal:
        position, key = torch.arange(70 * q_block) + offset, torch.arange(33 * k_block)
        seen = (key <= position[:, None]).reshape(70, q_block, 33, k_block).any(3).any(1)
        expected = expected.masked_fill(~seen, -torch.inf)
    torch.testing.assert_close(got.double(), expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    "how",
    [
        {"causal": False},
        {},
        {"dtype": BF16, "group": 1},
        {"q_block": 16, "k_block": 4, "offset": 3},
        {"q_block": 1, "offset": 100},
    ],
)
def test_block_score(how):
    scored(**how)


def chosen(module=side, n=300, k=17):
    """Check the k best of rows with ties, few or no candidates, negative and equal scores."""
    scores = randn(6, n, dtype=torch.float32)
    scores[1, 5:] = -torch.inf
    scores[2] = torch.randint(-2, 3, (n,), generator=torch.Generator().manual_seed(2)).float()
    scores[3] = torch.where(torch.arange(n) % 2 == 0, -0.0, 0.0)
    scores[4] = -torch.inf
    scores[5] = -scores[0].abs() * 1e-30
    index, counts = module.top_k(scores.reshape(2, 3, n), k)
    assert index.shape == (2, 3, k)
    # A stable sort puts the first of equal scores first.
    order = torch.sort(scores, dim=1, descending=True, stable=True).indices[:, :k]
    for row, columns in enumerate(order):
        live = columns[scores[row, columns] > -torch.inf].sort().values.int()
        padded = torch.nn.functional.pad(live, (0, k - len(live)), value=-1)
        assert torch.equal(index.reshape(6, k)[row], padded), row
    assert counts.flatten().tolist() == (index >= 0).sum(-1).flatten().tolist()


@pytest.mark.parametrize(("n", "k"), [(300, 17), (300, 1), (33, 33), (20, 40)])
def test_top_k(n, k):
    chosen(n=n, k=k)


def test_top_k_of_a_row_longer_than_a_block(monkeypatch):
    monkeypatch.setattr(side, "TOP_K_BLOCK", 128)
    chosen(n=290, k=150)


def test_top_k_of_nothing():
    index, counts = side.top_k(torch.zeros(2, 0), 3)
    assert index.tolist() == [[-1] * 3] * 2
    assert counts.tolist() == [0, 0]
    with pytest.raises(ValueError, match="k must be at least 1"):
        side.top_k(torch.zeros(2, 4), 0)


def estimated(module=estimate, rows=64, n=300, group=2, dtype=HALF):
    """Check sums of the last rows' probabilities by key and by distance."""
    q, k = randn(2, rows, 2 * group, 32, dtype=dtype), randn(2, n, 2, 32, dtype=dtype)
    vertical, slash = module.vertical_slash(q, k)
    scores = torch.einsum("bqhd,bkhd->bhqk", q.double(), repeated(k, 2 * group)) * 32**-0.5
    distance = torch.arange(n - rows, n)[:, None] - torch.arange(n)
    p = torch.softmax(scores.masked_fill(distance < 0, -torch.inf), -1)
    torch.testing.assert_close(vertical.double(), p.sum(2), atol=1e-3, rtol=1e-3)
    expected = torch.zeros(p.shape[0], p.shape[1], n, dtype=torch.float64)
    expected.index_add_(2, distance.clamp(min=0).flatten(), p.flatten(2))
    torch.testing.assert_close(slash.double(), expected, atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize(
    ("rows", "n", "group", "dtype"), [(64, 300, 2, HALF), (64, 64, 1, BF16), (20, 129, 4, BF16), (1, 70, 1, HALF)]
)
def test_vertical_slash(rows, n, group, dtype):
    estimated(rows=rows, n=n, group=group, dtype=dtype)


def linear(module=estimate, tokens=100, n=300, dv=16, group=2, dtype=HALF):
    """Check attention with the softmax feature map, keys in several chunks."""
    q, k, v = randn(2, tokens, 2 * group, 32, dtype=dtype), randn(2, n, 2, 32, dtype=dtype), randn(2, n, 2, dv, dtype=dtype)
    phi_q, phi_k = torch.softmax(q.double(), -1), torch.softmax(repeated(k, 2 * group), -1)
    weights = torch.einsum("bqhd,bkhd->bhqk", phi_q, phi_k)
    expected = torch.einsum("bhqk,bkhe->bqhe", weights / weights.sum(-1, keepdim=True), repeated(v, 2 * group))
    tolerance = 1e-3 if dtype == HALF else 6e-3
    torch.testing.assert_close(module.linear_attention(q, k, v).double(), expected, atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize(("tokens", "n", "group", "dtype"), [(100, 300, 2, HALF), (130, 65, 1, BF16), (1, 3, 4, HALF)])
def test_linear_attention(tokens, n, group, dtype, monkeypatch):
    monkeypatch.setattr(estimate, "LINEAR_CHUNK", 128)
    linear(tokens=tokens, n=n, group=group, dtype=dtype)


def test_linear_attention_of_many_keys_fits_fp16():
    """The plain sum of these values is far beyond 65504."""
    v = torch.full((1, 4096, 1, 16), 600.0, dtype=HALF)
    out = estimate.linear_attention(randn(1, 16, 1, 16), randn(1, 4096, 1, 16), v)
    torch.testing.assert_close(out, torch.full_like(out, 600.0), atol=0, rtol=2e-3)


def test_selection_feeds_decode():
    """Pool, score, choose, attend: with every block chosen it is plain decode, with fewer it is not."""
    pages, page, heads, d = 9, 16, 2, 32
    k, v, q = randn(1, pages * page, heads, d), randn(1, pages * page + 1, heads, d)[:, 1:], randn(1, heads, d)
    caches = [x.reshape(pages, page, heads, d) for x in (k, v)]
    table, lengths = torch.arange(pages, dtype=torch.int32)[None], torch.tensor([pages * page], dtype=torch.int32)
    scores = side.block_score(q[:, None], side.mean_pool(k, page))[:, :, 0]
    whole, _ = decode.decode(q, *caches, table, lengths, splits=1)
    for count in (pages, 3):
        chosen_pages, counts = side.top_k(scores, count)
        out, _ = decode.decode_pages(q, *caches, table, lengths, chosen_pages, counts, splits=2)
        assert torch.allclose(out, whole, atol=2e-3) == (count == pages)


@pytest.mark.parametrize(
    ("module", "old", "new", "check"),
    [
        (side, "tl.load(lengths_ptr + batch) + token", "tl.load(lengths_ptr + batch) + token + 1", appended),
        (side, "/ (stop - first)", "/ BLOCK", pooled),
        (side, "Q_BLOCK - 1 + offset", "Q_BLOCK + offset", scored),
        (side, "head // GROUP", "head % (Q_HEADS // GROUP)", scored),
        (side, "tl.cumsum(tie, 0) <= ties", "tl.cumsum(tie, 0) < ties", chosen),
        (side, "bits ^ 0x7FFFFFFF", "bits", chosen),
        (estimate, "key[None, :] <= position", "key[None, :] < position", estimated),
        (estimate, "row[:, None] - distance", "row[:, None] - 1 - distance", estimated),
        (estimate, "* norm[None, :]", "", linear),
    ],
)
def test_checks_notice(tmp_path, module, old, new, check):
    changed = mutant(tmp_path, module, old, new)
    with pytest.raises(AssertionError):
        check(changed)
