"""Masks as Python functions: the same tiles as the family with the same rule, head by head, and mistakes in a line."""

import numpy as np
import pytest
from simattn.facts import UserError
from simattn.workloads import AttentionProblem, Pattern, TokenLayout, schedule
from simattn.workloads.families import mask_function
from simattn.workloads.families.mask_function import watched
from simattn.workloads.layout import Tiling

SOURCE = """
import numpy as np

def causal(b, h, q_idx, kv_idx):
    return q_idx >= kv_idx

def window(b, h, q_idx, kv_idx):
    return (q_idx >= kv_idx) & (q_idx - kv_idx < 100)

def by_head(b, h, q_idx, kv_idx):
    return (q_idx >= kv_idx) & (q_idx - kv_idx < 100 * (h + 1))

def by_item(b, h, q_idx, kv_idx):
    return q_idx >= kv_idx + b

def keys_only(b, h, q_idx, kv_idx):
    return kv_idx < 64

def documents(b, h, q_idx, kv_idx):
    ids = np.repeat([0, 1, 2], [100, 300, 600])
    return ids[q_idx] == ids[kv_idx]

def nowhere(b, h, q_idx, kv_idx):
    return (q_idx < 0) & (kv_idx < 0)

def number(b, h, q_idx, kv_idx):
    return q_idx * kv_idx

def wrong_shape(b, h, q_idx, kv_idx):
    return np.ones((3, 5), bool)

def fails(b, h, q_idx, kv_idx):
    return q_idx.missing

CONSTANT = 3
"""


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "masks.py"
    path.write_text(SOURCE, encoding="utf-8")
    return path


def of(file, name, seq=1000, q_tile=64, kv_tile=32, heads=1):
    family = Pattern("mask_function", {"function": f"{file}:{name}"}).family
    return family.schedule_heads(TokenLayout(grid=(seq,)), Tiling(q=(q_tile,), kv=(kv_tile,)), heads)


@pytest.mark.parametrize(
    ("name", "pattern", "params"),
    [
        ("causal", "causal", {}),
        ("window", "sliding_window", {"window": 100}),
        ("documents", "documents", {"lengths": (100, 300, 600), "causal": False}),
    ],
)
@pytest.mark.parametrize(("q_tile", "kv_tile"), [(64, 32), (128, 128), (96, 40)])
def test_same_tiles_as_the_family_of_the_rule(file, name, pattern, params, q_tile, kv_tile):
    ours = of(file, name, q_tile=q_tile, kv_tile=kv_tile)
    theirs = schedule(pattern, seq_q=1000, q_tile=q_tile, kv_tile=kv_tile, **params)
    assert (ours.to_mask() == theirs.to_mask()).all()
    assert (ours.full_mask() == theirs.full_mask()).all()
    assert ours.pairs == theirs.pairs


def test_chunks_change_nothing(file, monkeypatch):
    whole = of(file, "window")
    monkeypatch.setattr(mask_function, "CHUNK", 1)
    mask_function._evaluated.cache_clear()
    chunked = of(file, "window")
    assert (whole.to_mask() == chunked.to_mask()).all()
    assert whole.pairs == chunked.pairs


def test_heads_are_evaluated_one_by_one_only_where_they_differ(file):
    same = of(file, "window", heads=4)
    assert (len(same.groups), same.copies) == (1, 4)
    differing = of(file, "by_head", heads=3)
    assert len(differing.groups) == 3
    parts = [schedule("sliding_window", seq_q=1000, q_tile=64, kv_tile=32, window=100 * n) for n in (1, 2, 3)]
    assert differing.visited == sum(part.visited for part in parts)
    assert differing.pairs_per_copy == tuple(part.pairs for part in parts)


def test_a_call_has_its_own_heads(file):
    pattern = Pattern("mask_function", {"function": f"{file}:by_head"})
    problem, layout = AttentionProblem(batch=2, q_heads=3, seq_q=512, head_dim=64), TokenLayout(grid=(512,))
    (op,) = pattern.plan(problem, layout, lambda mask_class, kernel: Tiling(q=(64,), kv=(64,)))
    assert [group.copies for group in op.schedule.groups] == [2, 2, 2]


def test_what_broadcasts_is_enough(file):
    s = of(file, "keys_only", seq=256)
    assert (s.visited, s.full, s.pairs) == (8, 8, 256 * 64)


def test_progress_is_told(file):
    told = []
    with watched(told.append):
        of(file, "window", seq=999)
    assert told == sorted(told)
    assert 0 <= told[0] < told[-1] < 1


def test_memory_does_not_grow_with_pairs(file):
    import tracemalloc

    of(file, "causal", seq=256)
    tracemalloc.start()
    of(file, "causal", seq=20000, q_tile=128, kv_tile=128)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 100e6  # of 400e6 pairs


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("by_item", "depends on the item of the batch"),
        ("nowhere", "is true nowhere"),
        ("number", "TypeError: gives int64, and not bool"),
        ("wrong_shape", "ValueError"),
        ("fails", "AttributeError"),
        ("absent", "has no function absent"),
        ("CONSTANT", "has no function CONSTANT"),
    ],
)
def test_a_mistake_is_one_line(file, name, said):
    with pytest.raises(UserError) as caught:
        of(file, name)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


def test_files_that_are_none(tmp_path):
    broken = tmp_path / "broken.py"
    broken.write_text("1 +", encoding="utf-8")
    with pytest.raises(UserError, match=r"cannot run .*SyntaxError"):
        of(broken, "causal")
    with pytest.raises(UserError, match="no such file"):
        of(tmp_path / "none.py", "causal")
    with pytest.raises(UserError, match="function"):
        Pattern("mask_function", {"function": "masks.py"})


def test_flex_attention_sees_the_same_blocks(file):
    torch = pytest.importorskip("torch")
    from torch.nn.attention.flex_attention import create_block_mask

    def rule(b, h, q, k):
        return (q >= k) & (q - k < 100 * (h + 1))

    # Of a length that fills all tiles: FlexAttention takes what lies behind the end for masked.
    theirs = create_block_mask(rule, 1, 3, 1024, 1024, device="cpu", BLOCK_SIZE=128)
    ours = of(file, "by_head", seq=1024, q_tile=128, kv_tile=128, heads=3)
    assert ours.visited == int(torch.sum(theirs.kv_num_blocks) + torch.sum(theirs.full_kv_num_blocks))
    assert ours.full == int(torch.sum(theirs.full_kv_num_blocks))
    assert np.array_equal(ours.to_mask(), theirs.to_dense()[0].numpy().astype(bool))
