"""Files of real Q and K: what they fix, and what is refused."""

import numpy as np
import pytest
from simattn.facts import UserError
from simattn.workloads.qk import load_qk


def write(path, **arrays):
    np.savez(path, **arrays)
    return str(path)


def test_sizes(tmp_path):
    k = np.arange(2 * 8 * 4, dtype=np.float32).reshape(2, 8, 4)
    file = write(tmp_path / "qk.npz", q=np.ones((6, 5, 4), np.float16), k=k)
    loaded = load_qk(file)
    assert loaded.sizes() == {"q_heads": 6, "kv_heads": 2, "head_dim": 4, "seq_q": 5, "seq_kv": 8}
    assert (loaded.k == k).all()


@pytest.mark.parametrize(
    ("arrays", "said"),
    [
        ({"q": np.ones((2, 4, 8))}, "must hold arrays q and k, got q"),
        ({"q": np.ones((2, 4)), "k": np.ones((2, 4, 8))}, r"q must be a float array \[heads, tokens, head_dim\]"),
        ({"q": np.ones((2, 4, 8), int), "k": np.ones((2, 4, 8))}, "q must be a float array"),
        ({"q": np.ones((2, 4, 8)), "k": np.full((2, 4, 8), np.nan)}, "k holds numbers that are not finite"),
        ({"q": np.ones((3, 4, 8)), "k": np.ones((2, 4, 8))}, "do not fit each other"),
        ({"q": np.ones((2, 4, 8)), "k": np.ones((2, 4, 16))}, "do not fit each other"),
        ({"q": np.ones((2, 6, 8)), "k": np.ones((2, 4, 8))}, "do not fit each other"),
    ],
)
def test_a_mistake_is_one_line(tmp_path, arrays, said):
    with pytest.raises(UserError, match=said):
        load_qk(write(tmp_path / "qk.npz", **arrays))


def test_files_that_are_none(tmp_path):
    (tmp_path / "text.npz").write_text("no arrays", encoding="utf-8")
    with pytest.raises(UserError, match=r"not a \.npz file"):
        load_qk(str(tmp_path / "text.npz"))
    with pytest.raises(UserError, match="no such file"):
        load_qk(str(tmp_path / "none.npz"))
