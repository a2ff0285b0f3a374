"""Decode kernels in Triton's interpreter, against attention in float64; whatever they must not read is nan or no page at all."""

import importlib.util
import os
from pathlib import Path

import pytest

os.environ.setdefault("TRITON_INTERPRET", "1")
torch = pytest.importorskip("torch")
pytest.importorskip("triton")

from simattn.kernels.triton import decode as kernels  # noqa: E402

TOLERANCE = {torch.float16: 2e-3, torch.bfloat16: 1.6e-2}
NO_PAGE = 2**30
"""A page id that would read far outside the cache."""


class Case:
    """Queries, a cache with its pages in random order, and what attention to some of its keys must give."""

    def __init__(
        self, lengths, *, page=16, group=4, kv_heads=2, d=32, dv=None, dtype=torch.float16, tokens=None, heads_first=False
    ):
        generator = torch.Generator().manual_seed(sum(lengths) + page)
        dv = dv or d
        self.dtype, self.page, self.group, self.kv_heads, self.tokens = dtype, page, group, kv_heads, tokens or 1
        batch = len(lengths)
        self.lengths = torch.tensor(lengths, dtype=torch.int32)
        shape = (batch, kv_heads * group, d) if tokens is None else (batch, tokens, kv_heads * group, d)
        self.q = torch.randn(shape, generator=generator).to(dtype)
        columns = max(-(-max(lengths) // page), 1) + 1
        order = torch.randperm(batch * columns, generator=generator).reshape(batch, columns).int()
        self.table = torch.full((batch, columns), NO_PAGE, dtype=torch.int32)
        self.k_cache = self._cache(batch * columns, d, heads_first)
        self.v_cache = self._cache(batch * columns, dv, heads_first)
        self.keys, self.values = [], []
        for b, length in enumerate(lengths):
            used = -(-length // page)
            self.table[b, :used] = order[b, :used]
            position = torch.arange(length)
            pages, slots = order[b].long()[position // page], position % page
            self.keys.append(torch.randn((length, kv_heads, d), generator=generator).to(dtype))
            self.values.append(torch.randn((length, kv_heads, dv), generator=generator).to(dtype))
            self.k_cache[pages, slots] = self.keys[b]
            self.v_cache[pages, slots] = self.values[b]

    def _cache(self, pages, width, heads_first):
        shape = (pages, self.kv_heads, self.page, width) if heads_first else (pages, self.page, self.kv_heads, width)
        cache = torch.full(shape, float("nan"), dtype=self.dtype)
        return cache.transpose(1, 2) if heads_first else cache

    def check(self, got, chosen=None, scale=None):
        """Assert that `got` is attention to positions chosen[batch][kv_head], all by default."""
        out, lse = (part.double() for part in got)
        assert out.shape == (*self.q.shape[:-1], self.v_cache.shape[-1])
        batch = len(self.keys)
        out = out.reshape(batch, self.tokens, self.kv_heads, self.group, -1)
        lse = lse.reshape(batch, self.tokens, self.kv_heads, self.group)
        q = self.q.double().reshape(batch, self.tokens, self.kv_heads, self.group, -1)
        scale = scale or q.shape[-1] ** -0.5
        for b, length in enumerate(self.lengths.tolist()):
            for h in range(self.kv_heads):
                positions = torch.arange(length) if chosen is None else torch.tensor(chosen[b][h], dtype=torch.long)
                for t in range(self.tokens):
                    seen = positions[positions <= length - self.tokens + t]
                    scores = q[b, t, h] @ self.keys[b][seen, h].double().T * scale
                    expected = torch.softmax(scores, -1) @ self.values[b][seen, h].double()
                    torch.testing.assert_close(lse[b, t, h], torch.logsumexp(scores, -1), atol=1e-3, rtol=0)
                    torch.testing.assert_close(out[b, t, h], expected, atol=TOLERANCE[self.dtype], rtol=TOLERANCE[self.dtype])

    def paged(self, module=kernels, splits=1, scale=None):
        """Check `decode`."""
        got = module.decode(self.q, self.k_cache, self.v_cache, self.table, self.lengths, splits=splits, scale=scale)
        self.check(got, scale=scale)

    def gathered(self, module=kernels, splits=1, grain=1):
        """Check lists of `grain` tokens: a random half of the blocks, none for one head, and entries that are not to be read."""
        generator = torch.Generator().manual_seed(int(self.lengths.sum()))
        chosen, lists = [], []
        for b, length in enumerate(self.lengths.tolist()):
            blocks = -(-length // grain)
            rows = [torch.randperm(blocks, generator=generator)[: (blocks + 1) // 2].tolist() for _ in range(self.kv_heads)]
            rows[0] = [] if b == 1 else rows[0]
            chosen.append([[token for i in row for token in range(i * grain, min(i * grain + grain, length))] for row in rows])
            # -1 is no block, and the first block behind the end holds no token.
            lists.append([[-1, *row, -(-length // grain)] for row in rows])
        counts = torch.tensor([[len(row) for row in rows] for rows in lists], dtype=torch.int32)
        selected = torch.full((*counts.shape, int(counts.max()) + 2), NO_PAGE // grain, dtype=torch.int32)
        for b, rows in enumerate(lists):
            for h, row in enumerate(rows):
                selected[b, h, : len(row)] = torch.tensor(row)
        given = (self.q, self.k_cache, self.v_cache, self.table, self.lengths, selected, counts)
        if grain == 1:
            got = module.decode_tokens(*given, splits=splits)
        else:
            got = module.decode_pages(*given, grain=None if grain == self.page else grain, splits=splits)
        self.check(got, chosen)


BF16 = {"dtype": torch.bfloat16}


@pytest.mark.parametrize(
    ("lengths", "splits", "shape"),
    [
        ([70, 0, 1], 1, {"page": 1, "group": 1}),
        ([130, 64, 7], 3, {"page": 16, "group": 4, "d": 64, **BF16}),
        ([200, 65], 2, {"page": 64, "group": 7, "kv_heads": 1, "d": 64}),
        ([129, 300], 4, {"page": 128, "group": 8, "kv_heads": 1, "d": 128, **BF16}),
        ([100, 2, 0, 128], 2, {"tokens": 3, "kv_heads": 1}),
        ([150], 1, {"tokens": 9, "page": 64, "group": 8, "kv_heads": 1, "d": 16, **BF16}),
        ([33], None, {"page": 5, "group": 20}),
        ([600], None, {"page": 128, "dv": 64, "kv_heads": 1}),
        ([90, 40], 20, {"heads_first": True, "kv_heads": 3, "d": 16}),
    ],
)
def test_decode(lengths, splits, shape):
    Case(lengths, **shape).paged(splits=splits)


def test_scale():
    Case([80]).paged(scale=0.3)


@pytest.mark.parametrize(
    ("lengths", "splits", "grain", "shape"),
    [
        ([130, 64, 0], 1, 1, {"page": 1, "group": 1}),
        ([200, 65], 3, 1, {"page": 16, "group": 8, "d": 64, **BF16}),
        ([300, 41], 2, 16, {"page": 16, "group": 7}),
        ([300, 128], 1, 64, {"page": 64, **BF16}),
        ([500, 128, 7], 2, 128, {"page": 128}),
        ([150, 41], 1, 32, {"page": 8, "tokens": 2}),
    ],
)
def test_selected(lengths, splits, grain, shape):
    Case(lengths, **shape).gathered(splits=splits, grain=grain)


def merged(module=kernels):
    """Check the merge of more splits than one step of it takes, some without keys, one row with none at all."""
    generator = torch.Generator().manual_seed(1)
    lse = torch.randn((37, 5), generator=generator) * 4
    lse[::3] = -torch.inf
    lse[:, 4] = -torch.inf
    parts = torch.randn((37, 5, 32), generator=generator)
    out, total = module.merge(parts, lse, torch.float32)
    expected = torch.logsumexp(lse.double(), 0)
    torch.testing.assert_close(total.double(), expected, atol=1e-4, rtol=0)
    weights = torch.exp(lse.double() - torch.where(expected.isinf(), 0.0, expected))
    torch.testing.assert_close(out.double(), (weights[:, :, None] * parts).sum(0), atol=1e-5, rtol=1e-5)


def test_merge():
    merged()


def mutant(tmp_path, old, new):
    """The module with one piece of its source changed."""
    source = Path(kernels.__file__).read_text()
    assert old in source
    path = tmp_path / "mutant.py"
    path.write_text(source.replace(old, new))
    spec = importlib.util.spec_from_file_location("simattn.kernels.triton.mutant", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize(
    ("old", "new", "check"),
    [
        ("limit = length - TOKENS + token + 1", "limit = length - TOKENS + token", lambda m: Case([40], tokens=2).paged(m)),
        ("tl.minimum(stop, length - TOKENS + 1)", "tl.minimum(stop, length)", lambda m: Case([128], tokens=3).paged(m)),
        (
            "stop = tl.minimum(start + chunk, length)",
            "stop = tl.minimum(start + chunk, length - 1)",
            lambda m: Case([65]).paged(m),
        ),
        ("slot = position % PAGE", "slot = (position + 1) % PAGE", lambda m: Case([40]).paged(m)),
        ("kv_head * GROUP + row % GROUP", "kv_head + row % GROUP * 2", lambda m: Case([40]).paged(m)),
        ("tl.trans(k)) * qk_scale", "tl.trans(k)) * qk_scale * 1.05", lambda m: Case([40]).paged(m)),
        ("(block >= 0) & (position < length)", "(block >= 0) & (position <= length)", lambda m: Case([40]).gathered(m)),
        ("block * GRAIN + entry % GRAIN", "block * GRAIN", lambda m: Case([40]).gathered(m, grain=16)),
        ("acc = acc * alpha +", "acc = acc +", merged),
    ],
)
def test_checks_notice(tmp_path, old, new, check):
    module = mutant(tmp_path, old, new)
    with pytest.raises(AssertionError, match="not close"):
        check(module)


def test_split_count():
    assert kernels.split_count(programs=8, keys=131072, processors=132) == 17
    assert kernels.split_count(programs=8, keys=1024, processors=132) == 4
    assert kernels.split_count(programs=512, keys=131072, processors=132) == 1
    assert kernels.split_count(programs=1, keys=10**6, processors=132) == kernels.MOST_SPLITS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"q": torch.zeros(1, 8, 32)}, "all fp16 or all bf16"),
        ({"lengths": torch.zeros(1)}, "lengths must be contiguous int32"),
        ({"page_table": torch.zeros(2, 3, dtype=torch.int32)}, "a row per sequence"),
        ({"q": torch.zeros(1, 7, 32, dtype=torch.float16)}, "q_heads must be a multiple"),
        ({"q": torch.zeros(1, 8, 64, dtype=torch.float16)}, "caches must be"),
        ({"splits": 0}, "splits must be at least 1"),
    ],
)
def test_refuses(change, message):
    case = Case([20])
    given = {"q": case.q, "k_cache": case.k_cache, "v_cache": case.v_cache, "page_table": case.table, "lengths": case.lengths}
    with pytest.raises(ValueError, match=message):
        kernels.decode(**{**given, **change})
