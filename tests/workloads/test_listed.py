"""Blocks listed in a file."""

from pathlib import Path

import numpy as np
import pytest
from simattn.facts import UserError
from simattn.workloads import Kind, Pattern, TokenLayout, schedule
from simattn.workloads.families import Listed
from simattn.workloads.layout import Tiling

MASK = np.array([[1, 0, 1], [0, 1, 1]], bool)


def lists(**change):
    good = {"indptr": [0, 2, 4], "indices": [0, 2, 1, 2], "q_tile": 64, "kv_tile": 32, "seq_q": 128, "seq_kv": 96}
    return {k: v for k, v in (good | change).items() if v is not None}


@pytest.fixture
def npy(tmp_path):
    path = tmp_path / "mask.npy"
    np.save(path, MASK)
    return str(path)


@pytest.fixture
def npz(tmp_path):
    def write(**change):
        path = tmp_path / "mask.npz"
        np.savez(path, **lists(**change))
        return str(path)

    return write


def test_array_of_blocks_takes_the_tokens_of_the_call(npy):
    s = schedule("mask_file", seq_q=100, seq_kv=150, q_tile=50, kv_tile=50, file=npy)
    assert (s.to_mask()[0] == MASK).all()
    assert (s.seq_q, s.seq_kv, s.visited, s.full) == (100, 150, 4, 4)


def test_lists_state_their_own_tokens(npz):
    square = Pattern("mask_file", {"file": npz(seq_kv=128)})
    assert square.default_layout() == TokenLayout(grid=(128,))
    s = square.schedule(square.default_layout(), Tiling(q=(64,), kv=(32,)))
    assert s.to_bsr()[1].tolist() == [0, 2, 1, 2]


def test_fewer_queries_than_keys(npz):
    family = Listed(file=npz(indptr=[0, 2], indices=[0, 2], seq_q=64))
    layout = family.own_layout()
    assert layout == TokenLayout(grid=(96,), queries=64)
    assert family.schedule(layout, Tiling(q=(64,), kv=(32,))).pairs == 64 * 64


def test_kinds_of_blocks_are_kept(npz):
    family = Listed(file=npz(seq_kv=128, kinds=[Kind.FULL, Kind.SKIPPED, Kind.GATHER, Kind.PARTIAL]))
    s = family.schedule(TokenLayout(grid=(128,)), Tiling(q=(64,), kv=(32,)))
    assert (s.visited, s.full, s.partial) == (3, 1, 1)
    assert s.counts.skipped.tolist() == [1, 0]


def test_kernel_tiles_may_be_others(npy):
    s = schedule("mask_file", seq_q=128, seq_kv=192, q_tile=128, kv_tile=32, file=npy)
    assert s.to_mask()[0].tolist() == [[True] * 6]
    assert s.full_mask()[0].tolist() == [[False] * 4 + [True] * 2]


def test_what_simattn_writes_it_reads(tmp_path):
    s = schedule("causal", seq_q=1000)
    indptr, indices = s.to_bsr()
    path = tmp_path / "causal.npz"
    np.savez(path, indptr=indptr, indices=indices, q_tile=128, kv_tile=128, seq_q=1000, seq_kv=1000)
    assert (schedule("mask_file", seq_q=1000, file=str(path)).to_mask() == s.to_mask()).all()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"indptr": None, "q_tile": None}, "lacks indptr, q_tile"),
        ({"seq_q": 100}, "is of 100 x 96 tokens, the call of 96 x 96"),
        ({"seq_q": 96, "indices": [0, 5, 1, 2]}, r"indices must lie in 0\.\.2"),
    ],
)
def test_broken_lists_are_refused(change, message, npz):
    with pytest.raises(UserError, match=message):
        Listed(file=npz(**change)).schedule(TokenLayout(grid=(96,)), Tiling(q=(64,), kv=(32,)))


def test_a_mask_that_does_not_cut_the_tokens_is_refused(npy):
    with pytest.raises(UserError, match="a mask of 2 x 3 blocks does not cut 4 x 4 tokens evenly"):
        Listed(file=npy).schedule(TokenLayout(grid=(4,)), Tiling(q=(2,), kv=(2,)))


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("mask.txt", b"", r"ends in \.npz, \.npy or \.pt"),
        ("mask.npy", None, "cannot read mask file"),
        ("mask.npy", b"no numpy", "cannot read mask file"),
        ("mask.npz", b"no zip", "cannot read mask file"),
        ("mask.npz", b"", "cannot read mask file"),
    ],
)
def test_files_that_hold_no_mask_are_refused(name, content, message, tmp_path):
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UserError, match=message) as caught:
        schedule("mask_file", seq_q=128, file=str(path))
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("array", [np.ones((2, 2)), np.ones(4, bool), np.ones((2, 2, 2, 2), bool), np.ones((0, 2), bool)])
def test_arrays_of_another_kind_are_refused(array, tmp_path):
    path = tmp_path / "mask.npy"
    np.save(path, array)
    with pytest.raises(UserError, match="must hold a bool array"):
        schedule("mask_file", seq_q=128, file=str(path))


def test_a_truncated_npz_is_refused(npz):
    path = Path(npz())
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(UserError, match="cannot read mask file"):
        schedule("mask_file", seq_q=128, file=str(path))


def test_heads_may_have_blocks_of_their_own(tmp_path):
    path, rng = tmp_path / "mask.npy", np.random.default_rng(0)
    masks = rng.random((3, 4, 4)) < 0.5
    masks[:, 0, 0] = True
    np.save(path, masks)
    family = Listed(file=str(path))
    layout, tiling = TokenLayout(grid=(256,)), Tiling(q=(64,), kv=(64,))
    heads = family.schedule_heads(layout, tiling, 3)
    assert (heads.to_mask() == masks).all()
    assert (family.schedule(layout, tiling).to_mask()[0] == masks[0]).all()
    with pytest.raises(UserError, match="lists the blocks of 3 heads, and the call has 4"):
        family.schedule_heads(layout, tiling, 4)


@pytest.mark.parametrize("form", ["npz", "pt", "pt of a dict"])
def test_a_block_mask_of_flex_attention_is_read(form, tmp_path):
    torch = pytest.importorskip("torch")
    from torch.nn.attention.flex_attention import BlockMask, create_block_mask

    def rule(b, h, q, k):
        return (q >= k) & (q - k < 200 * (h + 1))

    made = create_block_mask(rule, 1, 2, 1024, 1024, device="cpu", BLOCK_SIZE=128)
    names = ("kv_num_blocks", "kv_indices", "full_kv_num_blocks", "full_kv_indices")
    lists = {name: getattr(made, name) for name in names}
    sizes = {"BLOCK_SIZE": made.BLOCK_SIZE, "seq_lengths": made.seq_lengths}
    path = tmp_path / ("mask.npz" if form == "npz" else "mask.pt")
    if form == "npz":
        np.savez(path, **{name: value.numpy() for name, value in lists.items()}, **sizes)
    elif form == "pt":
        torch.save(BlockMask.from_kv_blocks(*lists.values(), **sizes), path)
    else:
        torch.save({**lists, **sizes}, path)
    family = Listed(file=str(path))
    assert family.own_layout() == TokenLayout(grid=(1024,))
    read = family.schedule_heads(TokenLayout(grid=(1024,)), Tiling(q=(128,), kv=(128,)), 2)
    assert np.array_equal(read.to_mask(), made.to_dense()[0].numpy().astype(bool))
    assert read.full == int(made.full_kv_num_blocks.sum())


def test_nothing_but_a_block_mask_is_unpickled(tmp_path):
    torch = pytest.importorskip("torch")
    path = tmp_path / "mask.pt"
    torch.save({"kv_indices": Path}, path)
    with pytest.raises(UserError, match="holds more than a BlockMask") as caught:
        Listed(file=str(path)).own_layout()
    assert "\n" not in str(caught.value)
