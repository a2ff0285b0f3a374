"""The check lets rounding pass, and nothing else."""

import pytest

torch = pytest.importorskip("torch")

from simattn.validation.bench.check import WrongError, attention_rows, require  # noqa: E402


@pytest.fixture
def inputs():
    source = torch.Generator().manual_seed(0)
    return [torch.randn((2, heads, 2048, 64), generator=source).bfloat16() for heads in (4, 2, 2)]


def attend(q, k, v):
    k, v = (x.repeat_interleave(2, 1) for x in (k, v))
    return torch.softmax(q.float() @ k.float().transpose(-1, -2) / 8, -1).bfloat16().float() @ v.float()


def test_rounding_passes(inputs):
    found = attention_rows(attend(*inputs).bfloat16(), *inputs, lambda row: None, "bf16")
    assert 0 < found.error < 0.01
    assert found.rows == 2 * 4 * 8


def test_a_block_too_few_does_not(inputs):
    q, k, v = inputs
    o = attend(q, k[:, :, :-64], v[:, :, :-64])
    with pytest.raises(WrongError, match="wrong result"):
        attention_rows(o, q, k, v, lambda row: None, "bf16")


def test_masks_are_obeyed(inputs):
    q, k, v = inputs
    half = torch.arange(2048) < 1024
    o = attend(q, k[:, :, :1024], v[:, :, :1024])
    assert attention_rows(o, q, k, v, lambda row: half, "bf16").error < 0.01
    nothing = attention_rows(torch.zeros_like(q), q, k, v, lambda row: torch.zeros(2048, dtype=torch.bool), "bf16")
    assert nothing.error == 0


def test_nan_is_wrong():
    with pytest.raises(WrongError):
        require(float("nan"), "bf16", 1)
