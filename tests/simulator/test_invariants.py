"""What must hold of every prediction, on ten thousand random calls."""

import itertools

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from simattn.hwspecs import gpus
from simattn.kernels import kernels
from simattn.kernels.calibration import leaf, with_leaves
from simattn.simulator import STAGES, Setting, attention_time
from simattn.simulator.choice import KernelChoice
from simattn.workloads import AttentionProblem, from_bsr, schedule

KERNELS = {
    "a100": ("fa2", "triton"),
    "h100": ("fa3", "natten_hopper", "triton"),
    "b200": ("fa4", "trtllm_gen", "triton"),
    "l40s": ("fa2",),
}
SPECS = {hw: gpus.load(hw) for hw in KERNELS}
PAIRS = [(hw, kernel) for hw, names in KERNELS.items() for kernel in names]
SIDE = 8

many = settings(max_examples=2000, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))

blocks = st.lists(st.integers(0, 2**SIDE - 1), min_size=SIDE, max_size=SIDE)
"""Rows of a block mask, as bits."""


def made(rows, copies=4):
    lists = [[b for b in range(SIDE) if row >> b & 1] for row in rows]
    indptr = [0, *itertools.accumulate(map(len, lists))]
    tokens = 128 * SIDE
    flat = list(itertools.chain.from_iterable(lists))
    return from_bsr(indptr, flat, q_tile=128, kv_tile=128, seq_q=tokens, seq_kv=tokens).with_copies(copies)


def stages(hw, kernel, work, setting=Setting(), *, spec=None):  # noqa: B008 (immutable)
    spec, profile = spec or SPECS[hw], kernels.load(kernel)
    problem = AttentionProblem(q_heads=4, seq_q=128 * SIDE, head_dim=128)
    tile = profile.tile_for(spec, 128, profile.masks[0])
    choice = KernelChoice(profile, tile, profile.tiling(tile, 1, problem.seq_q), spec)
    return attention_time(spec, choice, work, problem, setting).stages


BALANCED = Setting(clock="burst", fidelity="bound")


@given(pair=st.sampled_from(PAIRS), rows=blocks, copies=st.integers(1, 64), fidelity=st.sampled_from(["bound", "fast", "cycle"]))
@many
def test_stages_never_fall_and_nothing_is_below_its_bound(pair, rows, copies, fidelity):
    work = made(rows, copies)
    times = stages(*pair, work, Setting(fidelity=fidelity))
    assert list(times) == list(STAGES[:-1])
    ladder = list(times.values())
    assert all(a <= b for a, b in itertools.pairwise(ladder))
    spec = SPECS[pair[0]]
    peak = spec.chip.sm_count * spec.tensor_flops_per_clk("bf16") * spec.clock_hz("burst")
    assert ladder[-1] >= 4.0 * work.visited * 128 * 128 * 128 / peak * (1 - 1e-9)


@given(pair=st.sampled_from(PAIRS), rows=blocks, dropped=blocks)
@many
def test_fewer_visits_never_cost_time_on_a_balanced_machine(pair, rows, dropped):
    fewer = [row & ~gone for row, gone in zip(rows, dropped, strict=True)]
    assert stages(*pair, made(fewer), BALANCED)["clock"] <= stages(*pair, made(rows), BALANCED)["clock"] * (1 + 1e-12)


@given(
    pair=st.sampled_from(PAIRS),
    rows=blocks,
    factor=st.floats(1, 8),
    path=st.sampled_from(["mem.dram.gbps", "mem.l2.bytes_per_clk", "units.ex2", "units.alu_lanes", "units.fma_lanes"]),
)
@many
def test_more_of_anything_never_costs_time_on_a_balanced_machine(pair, rows, factor, path):
    spec = SPECS[pair[0]]
    more = with_leaves(spec, {path: leaf(spec, path) * factor})
    # A faster unit can put ops of two roles in a worse order, by a little.
    slack = 1e-12 if path.startswith("mem") else 0.02
    assert stages(*pair, made(rows), BALANCED, spec=more)["clock"] <= stages(*pair, made(rows), BALANCED)["clock"] * (1 + slack)


@given(pair=st.sampled_from(PAIRS), rows=blocks, off=st.sets(st.sampled_from(STAGES[1:-1])))
@many
def test_a_machine_without_a_limit_is_never_slower(pair, rows, off):
    work = made(rows)
    ideal = stages(*pair, work, BALANCED._replace(off=frozenset(off)))
    assert list(ideal.values())[-1] <= list(stages(*pair, work, BALANCED).values())[-1] * (1 + 1e-12)
    assert all(a <= b for a, b in itertools.pairwise(ideal.values()))
    every = stages(*pair, work, Setting(off=frozenset(STAGES[1:])))
    assert len(set(every.values())) == 1


@given(pair=st.sampled_from(PAIRS), lengths=st.lists(st.integers(1, 400), min_size=2, max_size=5), seed=st.randoms())
@many
def test_heads_and_items_in_another_order_change_no_count_and_no_bound(pair, lengths, seed):
    mixed = list(lengths)
    seed.shuffle(mixed)
    a, b = (schedule("ragged", seq_q=sum(lengths), lengths=tuple(order)).with_copies(4) for order in (lengths, mixed))
    assert (a.visited, a.full, a.pairs, a.live_area()) == (b.visited, b.full, b.pairs, b.live_area())
    assert stages(*pair, a, BALANCED) == pytest.approx(stages(*pair, b, BALANCED), rel=1e-9)


# NATTEN's kernel masks every tile unless the generator of the boxes tells it not to, so it stands aside.
@pytest.mark.parametrize("pair", [pair for pair in PAIRS if pair[1] != "natten_hopper"])
def test_dense_is_all_tiles(pair):
    every = made([2**SIDE - 1] * SIDE)
    dense = schedule("dense", seq_q=128 * SIDE).with_copies(4)
    for fidelity in ("bound", "fast", "cycle"):
        assert stages(*pair, every, Setting(fidelity=fidelity)) == pytest.approx(stages(*pair, dense, Setting(fidelity=fidelity)))


def test_stages_that_can_be_left_out_are_left_out():
    work = made([2**SIDE - 1] * SIDE)
    whole = stages("h100", "fa3", work)
    for name in STAGES[1:-1]:
        without = stages("h100", "fa3", work, Setting(off=frozenset({name})))
        before = STAGES[STAGES.index(name) - 1]
        assert without[name] == without[before], name
    assert msgspec.json.decode(msgspec.json.encode(whole)) == whole
