"""Tensor instructions against published micro-benchmarks.

tcgen05: SemiAnalysis' rows as `reference/hardware.md` section 2 has them; wgmma and mma.sync: Luo et al.
"""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from simattn.hwspecs import gpus
from simattn.kernels.tensor_core import instruction_interval, instruction_latency, matmul

A100, H100, B200, B300 = (gpus.load(name) for name in ("a100", "h100", "b200", "b300"))
COLUMNS = st.integers(1, 16).map(lambda n: 16 * n)
LEFT = st.sampled_from(["smem", "registers", "tmem"])


@pytest.mark.parametrize(
    ("rows", "columns", "left", "pair", "cycles"),
    [
        (128, 64, "smem", False, 48),
        (128, 128, "smem", False, 64),
        (128, 256, "smem", False, 128),
        (128, 64, "tmem", False, 32),
        (64, 64, "tmem", False, 32),
        (256, 64, "smem", True, 40),
        (256, 256, "smem", True, 128),
    ],
)
def test_interval_of_tcgen05(rows, columns, left, pair, cycles):
    assert instruction_interval(B200, rows, columns, left, pair) == cycles


@given(COLUMNS)
def test_interval_of_tcgen05_is_the_longer_of_multiplying_and_reading(columns):
    assert instruction_interval(B200, 128, columns) == max(columns / 2, (128 + columns) * 32 / 128)
    assert instruction_interval(B200, 256, columns, pair=True) == max(columns / 2, (128 + columns / 2) * 32 / 128)


@given(COLUMNS)
def test_pv_is_never_bound_by_shared_memory_and_qk_of_few_keys_is(columns):
    math = columns / 2
    assert instruction_interval(B200, 128, columns, "tmem") == math
    assert (instruction_interval(B200, 128, columns, "smem") > math) == (columns < 128)


@given(st.integers(1, 512), COLUMNS, LEFT, st.booleans(), st.sampled_from([A100, H100, B200, B300]))
def test_no_interval_is_shorter_than_its_multiplications(rows, columns, left, pair, spec):
    share = rows / 2 if pair else rows
    math = 2 * share * columns * (spec.mma.k_bytes / 2) / spec.tensor.bf16_f32
    assert instruction_interval(spec, rows, columns, left, pair) >= math
    assert instruction_interval(spec, rows, columns, left, pair) >= instruction_interval(spec, rows, columns, "tmem", pair)


@given(COLUMNS)
def test_latency_of_tcgen05(columns):
    half = columns / 2
    assert instruction_latency(B200, columns) == 136 + half
    assert instruction_latency(B200, columns, "tmem") == 104 + half
    assert instruction_latency(B200, columns, pair=True) == 170 + half
    assert instruction_latency(B200, columns, "tmem", pair=True) == 138 + half
    assert instruction_latency(B300, columns) == instruction_latency(B200, columns)


def test_latency_of_a_long_row_is_that_of_the_widest_instruction():
    assert instruction_latency(B200, 512) == instruction_latency(B200, 256) == 264


def test_latency_of_wgmma():
    assert [instruction_latency(H100, n) for n in (64, 128, 256)] == [32, 64, 128]
    assert instruction_latency(H100, 128, "registers") == instruction_latency(H100, 128, "smem")


def test_latency_of_mma_sync():
    assert instruction_latency(A100, 8) == 24.6
    assert instruction_latency(gpus.load("rtx_4090"), 8) == 24.6


def product(spec, rows, columns, depth, left="smem", **others):
    return matmul(spec, rows, columns, 2 * depth, left, spec.tensor.bf16_f32, depth, **others)


@given(st.integers(1, 4), COLUMNS, st.sampled_from([64, 128, 256]), LEFT, st.sampled_from([H100, B200]))
def test_a_product_is_its_instructions(blocks, columns, depth, left, spec):
    """Products run at the interval of one instruction, times their number; registers hold a left factor like tensor memory."""
    chain = product(spec, blocks * spec.mma.m, columns, depth, left)
    interval = instruction_interval(spec, spec.mma.m, columns, left)
    assert max(chain.tensor, chain.smem) == pytest.approx(blocks * depth / 16 * interval)
    assert chain.tensor == 2 * blocks * spec.mma.m * columns * depth / spec.tensor.bf16_f32


def test_factors_are_read_again_by_every_instruction():
    """FlashAttention-4's formula: K for every 128 rows of Q, and Q for every run of keys that an instruction takes."""
    assert product(B200, 256, 128, 128).smem == 2 * product(B200, 128, 128, 128).smem
    assert product(B200, 128, 512, 128).smem == 2 * product(B200, 128, 256, 128).smem
    assert product(H100, 128, 64, 128, "registers").smem == 2 * product(H100, 64, 64, 128, "registers").smem


@given(COLUMNS, st.sampled_from([A100, H100, B200]), LEFT)
def test_what_is_left_of_a_latency_after_the_product(columns, spec, left):
    """An instruction's own cycles are part of its published latency: what is left is that less those."""
    chain = product(spec, 128, columns, 128, left)
    assert 0 <= chain.latency <= instruction_latency(spec, columns, left)
    if spec is B200:
        assert chain.latency == instruction_latency(spec, columns, left) - columns / 2


def test_rows_that_an_instruction_has_in_vain():
    for spec, rows in ((H100, 64), (B200, 128)):
        assert product(spec, 16, 64, 128).tensor == product(spec, rows, 64, 128).tensor
    assert product(A100, 16, 64, 128).tensor == product(A100, 64, 64, 128).tensor / 4
    assert product(B200, 64, 64, 128, legacy=True).tensor == product(B200, 128, 64, 128).tensor / 2


def test_the_older_instruction_has_its_own_latency():
    for spec in (H100, B200):
        assert product(spec, 64, 64, 128, "registers", legacy=True).latency == pytest.approx(24, abs=0.2)
    assert product(A100, 64, 64, 128, "registers", legacy=True).latency == 24.6


def test_what_is_read():
    """K [64, 128] once, by each of eight warps, and Q [128, 128] beside it."""
    assert product(A100, 128, 64, 128, "registers").smem == 64 * 128 * 2 / 128
    assert product(A100, 128, 64, 128, "registers", readers=8).smem == 8 * 64 * 128 * 2 / 128
    assert product(A100, 128, 64, 128, "smem").smem == (64 + 128) * 128 * 2 / 128
