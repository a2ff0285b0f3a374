"""Kernels that compute all scores and skip the rest of a tile by them (BLASST), and those that look at a byte for each block."""

import pytest
from simattn.simulator import predict

SHAPE = {"q_heads": 64, "kv_heads": 4, "head_dim": 128}


CLOCK = pytest.mark.xfail(strict=True, reason="1.67 here: a dense call of 3.4 ms is too short for the clock to fall in it")


def speedup(skipped, **problem):
    return predict("blasst", "b200", baseline="trtllm_gen", params={"density": 1 - skipped}, **SHAPE, **problem).speedup


@pytest.mark.parametrize(("tokens", "skipped", "published"), [
    (16384, 0.0077, 0.99), (16384, 0.4913, 1.33), (16384, 0.7609, 1.56), pytest.param(16384, 0.9846, 1.83, marks=CLOCK),
    (65536, 0.4915, 1.33), (65536, 0.7526, 1.55), (65536, 0.9961, 1.85),
])  # fmt: skip
def test_prefill_of_blasst_on_b200(tokens, skipped, published):
    """TensorRT-LLM's blog 16; nothing was fitted to these rows. They were known when the form was chosen: not blind."""
    assert speedup(skipped, seq_q=tokens) == pytest.approx(published, rel=0.08)


@pytest.mark.parametrize("batch", [1, 8])
def test_a_decode_step_saves_values_and_never_keys(batch):
    problem = {"phase": "decode", "seq_kv": 65536, "batch": batch}
    none, half, most = (speedup(skipped, **problem) for skipped in (0.01, 0.5, 0.732))
    assert 0.97 < none < 1.05
    assert none < half < 1 / (1 - 0.5 / 2)
    assert half < most < 1 / (1 - 0.732 / 2)
    assert most == pytest.approx(1.48, rel=0.1), "arXiv 2512.12087, abstract"


@pytest.mark.parametrize(("tokens", "kept", "published"), [
    (8192, 0.5, 1.56), (8192, 0.1, 4.15), (32768, 0.3, 2.76), (32768, 0.1, 7.37), (131072, 0.2, 3.78), (131072, 0.1, 7.34),
])  # fmt: skip
def test_seer_attention_with_its_gate(tokens, kept, published):
    """The authors' figure, of a GPU that is an A100 by its dense time. Nothing was fitted; not blind, as above."""
    seer = predict("seer", "a100", params={"density": kept}, seq_q=tokens, q_heads=32, kv_heads=32, head_dim=128)
    assert seer.speedup == pytest.approx(published, rel=0.3)
    assert {op.op for op in seer.side} == {
        "pool Q, and K three ways", "gate products", "gate scores", "softmax and threshold"}  # fmt: skip
