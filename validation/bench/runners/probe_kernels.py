# ruff: noqa: N803
# mypy: allow-untyped-defs, allow-untyped-decorators, allow-incomplete-defs
"""Kernels that keep one unit of an SM busy and nothing else."""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def empty():
    """Nothing."""


@triton.jit
def exp2(x_ptr, out_ptr, iterations, BLOCK: tl.constexpr):
    """BLOCK chains of `iterations` exponentials a program: each value feeds the next, so that none can be left out."""
    place = tl.program_id(0) * BLOCK + tl.arange(0, BLOCK)
    x = tl.load(x_ptr + place)
    for _ in range(iterations):
        x = tl.math.exp2(-x)
    tl.store(out_ptr + place, x)


@triton.jit
def mma(a_ptr, b_ptr, out_ptr, iterations, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, UPCAST: tl.constexpr):
    """`iterations` products [M, K] x [K, N] into one accumulator a program; A and B are loaded once."""
    m, n, k = tl.arange(0, M), tl.arange(0, N), tl.arange(0, K)
    a = tl.load(a_ptr + m[:, None] * K + k[None, :])
    b = tl.load(b_ptr + k[:, None] * N + n[None, :])
    if UPCAST:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    acc = tl.zeros([M, N], tl.float32)
    for _ in range(iterations):
        acc = tl.dot(a, b, acc)
    tl.store(out_ptr + tl.program_id(0) * M * N + m[:, None] * N + n[None, :], acc)


@triton.jit
def mma_exp2(a_ptr, b_ptr, out_ptr, iterations, M: tl.constexpr, N: tl.constexpr, K: tl.constexpr, UPCAST: tl.constexpr):
    """A product and an exponential of each of its elements in turn, independent of each other: can the units overlap?"""
    m, n, k = tl.arange(0, M), tl.arange(0, N), tl.arange(0, K)
    a = tl.load(a_ptr + m[:, None] * K + k[None, :])
    b = tl.load(b_ptr + k[:, None] * N + n[None, :])
    if UPCAST:
        a = a.to(tl.float32)
        b = b.to(tl.float32)
    acc = tl.zeros([M, N], tl.float32)
    x = tl.zeros([M, N], tl.float32)
    for _ in range(iterations):
        acc = tl.dot(a, b, acc)
        x = tl.math.exp2(-x)
    tl.store(out_ptr + tl.program_id(0) * M * N + m[:, None] * N + n[None, :], acc + x)
