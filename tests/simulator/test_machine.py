"""The machine against answers that can be worked out by hand."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simattn.kernels import KINDS
from simattn.kernels.program import After, LoopProgram, Op
from simattn.simulator.machine import TICKS, Memory, Work, encode, fixed, run


def op(
    name,
    role,
    cycles,
    unit="",
    *,
    latency=0.0,
    after=(),
    runs_on=False,
    ahead=0,
    loads="",
    load_bytes=0,
    needs_q=False,
    steals=0.0,
):
    every = dict.fromkeys
    return Op(
        name=name,
        role=role,
        ahead=ahead,
        runs_on=runs_on,
        after=tuple(after),
        units=every(KINDS, {unit: cycles} if unit else {}),
        length=every(KINDS, cycles),
        latency=every(KINDS, latency),
        steals=every(KINDS, steals),
        load_bytes=every(KINDS, load_bytes),
        loads=loads,
        needs_q=needs_q,
    )


def program(*ops, by_warps=True):
    return LoopProgram("test", tuple(f"role {r}" for r in range(max(o.role for o in ops) + 1)), ops, by_warps)


FREE = Memory(port=0, q=0, o=0, l2=0, dram=0, l2_latency=0, dram_latency=0, capacity=10**9, multicast=1, streams=1)


def work(rows, *, ctas=None, heads=1, width=128, row_bytes=0):
    """Rows of so many plain visits, from tile 0 on; CTAs are all rows of each head, each head with keys of its own."""
    first = np.concatenate([[0], np.cumsum(rows)]).astype(np.int64)
    tile = np.concatenate([np.arange(n) for n in rows] or [np.zeros(0)]).astype(np.int32)
    cta_row = np.tile(np.arange(len(rows)), heads)[:ctas]
    keys = np.repeat(np.arange(heads), len(rows))[:ctas] * 2 * max(rows)
    ends = np.full(len(rows), max(rows) * width)
    return Work(first, tile, np.zeros(len(tile), np.int8), np.full(len(rows), row_bytes), ends, width, cta_row, keys)


def cycles(code_program, made, memory=FREE, *, sms=1, slots=1, prologue=0.0, tiles=10_000, **options):
    return run(encode(code_program), made, memory, sms=sms, slots=slots, prologue=prologue, tiles=tiles, **options).end / TICKS


def test_a_serial_loop_takes_the_sum_of_its_ops():
    loop = program(op("a", 0, 100, "tensor"), op("b", 0, 50, "ex2", latency=7))
    assert cycles(loop, work([10])) == 10 * 157


def test_ops_that_run_on_overlap_and_their_results_are_waited_for():
    # The second op of each tile needs the first one, which the role does not wait for.
    loop = program(op("a", 0, 100, "tensor", runs_on=True), op("b", 0, 30, "ex2", after=[After(0, 0, False, 0)]))
    assert cycles(loop, work([4])) == 4 * 130
    # Issued a tile ahead, it hides under the second op, or the other way round.
    ahead = program(op("a", 0, 100, "tensor", runs_on=True, ahead=1), op("b", 0, 30, "ex2", after=[After(0, 0, False, 0)]))
    assert cycles(ahead, work([4])) == 4 * 100 + 30


def test_two_roles_share_a_unit_in_the_order_in_which_they_ask():
    loop = program(op("a", 0, 60, "tensor"), op("b", 1, 40, "tensor"))
    assert cycles(loop, work([5])) == 5 * 100
    apart = program(op("a", 0, 60, "tensor"), op("b", 1, 40, "ex2"))
    assert cycles(apart, work([5])) == 5 * 60


def test_buffers_bound_how_far_a_producer_runs_ahead():
    # The producer takes 10 and the consumer 50; with one buffer they alternate, with two they overlap.
    def two_roles(buffers):
        return program(
            op("fill", 0, 10, "smem", after=[After(1, buffers, False, 0)]),
            op("use", 1, 50, "tensor", after=[After(0, 0, False, 0)]),
        )

    assert cycles(two_roles(1), work([8])) == 8 * 60
    assert cycles(two_roles(2), work([8])) == 10 + 8 * 50


def test_a_signal_costs_its_wait():
    loop = program(op("a", 0, 10, "smem"), op("b", 1, 10, "tensor", after=[After(0, 0, False, 25)]))
    assert cycles(loop, work([1])) == 45


def test_softmax_steals_tensor_cycles():
    loop = program(op("a", 0, 100, "tensor"), op("b", 1, 100, "ex2", steals=40))
    assert cycles(loop, work([10])) == pytest.approx(10 * 140, abs=100)


def test_ctas_go_to_the_first_free_sm():
    loop = program(op("a", 0, 100, "tensor"))
    assert cycles(loop, work([1] * 5), sms=2) == 300
    assert cycles(loop, work([3, 1, 1, 1]), sms=2) == 300
    assert cycles(loop, work([1] * 5), sms=2, prologue=20) == 3 * 120


TWO_UNITS = program(op("a", 0, 60, "tensor"), op("b", 0, 60, "ex2"))


def test_ctas_that_start_together_stay_in_step():
    # Both always want the same unit, which serves them in turn: nothing overlaps, as if one came after the other.
    assert cycles(TWO_UNITS, work([10])) == 1200
    assert cycles(TWO_UNITS, work([10, 10]), slots=1) == 2400
    assert cycles(TWO_UNITS, work([10, 10]), slots=2) == 2400
    # Half a visit apart they stay so, and each unit has one of them at a time.
    assert cycles(TWO_UNITS, work([10, 10]), slots=2, stagger=60) == 1260
    # A third of their time apart: of every 120 cycles they get in each other's way for 20 twice, which takes both 20 more.
    assert cycles(TWO_UNITS, work([10, 10]), slots=2, stagger=40) == pytest.approx(40 + 10 * 160, abs=40)


def test_ctas_whose_products_are_queued_whole_fall_out_of_step():
    # The second CTA waits for its first turn, and then each unit has one of them at a time.
    queued = program(*TWO_UNITS.ops, by_warps=False)
    assert cycles(queued, work([10, 10]), slots=2) == 1260


@settings(max_examples=40, deadline=None)
@given(st.lists(st.integers(0, 6), min_size=1, max_size=8), st.integers(2, 4), st.integers(0, 90))
def test_ctas_side_by_side_are_no_faster_than_a_unit_and_no_slower_than_one_by_one(rows, slots, stagger):
    together = cycles(TWO_UNITS, work(rows), slots=slots, stagger=stagger, prologue=10)
    assert 60 * sum(rows) <= together <= cycles(TWO_UNITS, work(rows), slots=1, prologue=10) + stagger * slots


def test_loads_of_ctas_side_by_side_pass_the_port_in_turn():
    loop = program(
        op("k", 0, 0, runs_on=True, loads="k", load_bytes=1000), op("use", 0, 10, "tensor", after=[After(0, 0, False, 0)])
    )
    port = memory(port=fixed(10), l2_latency=50 * TICKS)
    assert cycles(loop, work([1]), port) == pytest.approx(100 + 50 + 10, abs=0.1)
    # Both are there when all bytes of both have passed, and then share the unit.
    assert cycles(loop, work([1, 1]), port, slots=2) == pytest.approx(200 + 50 + 20, abs=0.1)


def test_what_arrives_slows_down_warps_that_read_shared_memory():
    def loop(unit):
        return program(op("k", 0, 0, runs_on=True, loads="k", load_bytes=1000), op("use", 0, 100, unit))

    port = memory(port=fixed(10), fills=0.5)
    assert cycles(loop("smem"), work([1]), port, slots=2) == 150
    assert cycles(loop("tensor"), work([1]), port, slots=2) == 100


def test_a_cta_without_visits_costs_its_start():
    assert cycles(program(op("a", 0, 100, "tensor")), work([0, 1]), prologue=30) == 30 + 30 + 100


LOAD = program(
    op("k", 0, 0, after=[After(1, 2, False, 0)], runs_on=True, loads="k", load_bytes=1000),
    op("use", 1, 10, "tensor", after=[After(0, 0, False, 0)], needs_q=True),
)


def memory(**limits):
    return FREE._replace(**limits)


def test_a_load_takes_its_latency_and_buffers_hide_it():
    # Two buffers: two loads are in flight in each round of latency and use (Little's law).
    slow = cycles(LOAD, work([20]), memory(l2_latency=200 * TICKS, dram_latency=200 * TICKS))
    assert slow == pytest.approx(10 * 210 + 10, abs=20)


def test_a_persistent_kernel_loads_for_the_next_cta_while_it_hands_over_an_output():
    slow = memory(l2_latency=100 * TICKS, dram_latency=100 * TICKS)
    # Start, load and use, one after the other. Or: the next load is issued when Q has been read, and only the longer of load and
    # hand-over is waited for.
    assert cycles(LOAD, work([1] * 4), slow, prologue=30) == 4 * 140
    assert cycles(LOAD, work([1] * 4), slow, prologue=30, persistent=True) == 140 + 3 * 110
    assert cycles(LOAD, work([1] * 4), slow, prologue=150, persistent=True) == 260 + 3 * 160
    # A CTA without visits waits for its Q all the same.
    assert cycles(LOAD, work([1, 0, 1]), slow, prologue=30, persistent=True) <= 140 + 100 + 110


@settings(max_examples=200, deadline=None, derandomize=True)
@given(
    rows=st.lists(st.integers(0, 5), min_size=1, max_size=12).filter(any),
    slots=st.integers(1, 2),
    sms=st.integers(1, 3),
    prologue=st.integers(0, 300),
    latency=st.integers(0, 300),
)
def test_a_persistent_kernel_does_the_same_work_and_alone_is_never_slower(rows, slots, sms, prologue, latency):
    made, where = work(rows, row_bytes=64), memory(l2_latency=latency * TICKS, dram_latency=latency * TICKS)
    own, persistent = (
        run(
            encode(LOAD),
            made,
            where,
            sms=sms,
            slots=slots,
            prologue=prologue,
            tiles=1000,
            persistent=p,
            record=1000,
            record_sms=3,
        )
        for p in (False, True)
    )
    # An SM that chooses its next CTA early may choose worse; alone it cannot.
    if sms == slots == 1:
        assert persistent.end <= own.end
    assert (persistent.busy == own.busy).all()
    assert persistent.l2_bytes == own.l2_bytes
    assert len(persistent.events) == len(own.events) == 2 * sum(rows)


def test_l2_and_dram_are_shared_by_all_sms():
    l2 = memory(l2=fixed(10.0))
    assert cycles(LOAD, work([20] * 4), l2, sms=4) == pytest.approx(4 * 20 * 1000 / 10, rel=0.02)
    # Four heads of the same keys: DRAM sends each tile once.
    dram = memory(dram=fixed(10.0))
    assert cycles(LOAD, work([20] * 4), dram, sms=4) == pytest.approx(20 * 1000 / 10, rel=0.02)
    # Four heads with keys of their own: four times.
    assert cycles(LOAD, work([20], heads=4), dram, sms=4) == pytest.approx(4 * 20 * 1000 / 10, rel=0.02)


def test_l2_forgets_what_was_used_longest_ago():
    made = work([10, 10])
    one_after_the_other = {"sms": 1, "tiles": 20}
    fits = run(encode(LOAD), made, memory(capacity=10), prologue=0, slots=1, **one_after_the_other)
    spills = run(encode(LOAD), made, memory(capacity=9), prologue=0, slots=1, **one_after_the_other)
    assert (fits.dram_bytes, spills.dram_bytes) == (10_000, 20_000)
    assert fits.l2_bytes == spills.l2_bytes == 20_000
    warm = run(encode(LOAD), made, memory(capacity=20), prologue=0, slots=1, warm=20, **one_after_the_other)
    assert warm.dram_bytes == 0


def test_keys_behind_the_end_are_not_fetched():
    made = work([4])._replace(row_keys=np.array([3 * 128 + 32]))
    assert run(encode(LOAD), made, FREE, sms=1, slots=1, prologue=0, tiles=8).l2_bytes == 3250


def test_halves_of_a_tile_are_fetched_each_for_itself():
    """From DRAM once, by however many CTAs they are read."""
    halves = program(*(op(name, 0, 0, loads=part, load_bytes=1000) for name, part in zip("abcd", "kkvv", strict=True)))
    for copies in (1, 3):
        made = work([5])._replace(cta_row=np.zeros(copies, np.int64), cta_keys=np.zeros(copies, np.int64))
        outcome = run(encode(halves), made, FREE, sms=1, slots=1, prologue=0, tiles=10)
        assert (outcome.dram_bytes, outcome.l2_bytes) == (4 * 5 * 1000, copies * 4 * 5 * 1000)
        assert run(encode(halves), made, FREE, sms=1, slots=1, prologue=0, tiles=10, warm=10).dram_bytes == 0


def test_q_and_o_move_at_rates_of_their_own():
    loop, made = program(op("a", 0, 10, needs_q=True)), work([1], row_bytes=400)
    assert cycles(loop, made, memory(q=fixed(4.0), o=fixed(1.0))) == 100 + 10 + 400
    assert cycles(loop, made, memory(q=fixed(1.0), o=fixed(4.0))) == 400 + 10 + 100


def test_the_port_of_an_sm_is_its_own():
    port = memory(port=fixed(10.0))
    alone, beside = cycles(LOAD, work([20]), port), cycles(LOAD, work([20] * 4), port, sms=4)
    assert alone == beside == pytest.approx(20 * 100, rel=0.02)


def test_busy_units_are_counted():
    loop = program(op("a", 0, 60, "tensor"), op("b", 0, 40, "alu"))
    busy = run(encode(loop), work([3, 4]), FREE, sms=2, slots=1, prologue=0, tiles=20).busy / TICKS
    assert busy.tolist() == [420, 0, 0, 280, 0, 0]


def test_a_loop_that_waits_for_itself_is_found():
    loop = program(op("a", 0, 10, after=[After(1, 0, False, 0)]), op("b", 1, 10, after=[After(0, 0, False, 0)]))
    with pytest.raises(RuntimeError, match="waits for itself"):
        cycles(loop, work([2]))


def test_the_same_twice_and_recording_changes_nothing():
    made = work([7, 3, 9, 1] * 5)
    options = {"sms": 3, "slots": 2, "prologue": 11, "tiles": 40}
    limits = memory(l2=fixed(7.0), dram=fixed(3.0), l2_latency=90 * TICKS, dram_latency=300 * TICKS, capacity=6)
    plain, again = (run(encode(LOAD), made, limits, **options) for _ in range(2))
    recorded = run(encode(LOAD), made, limits, **options, record=10_000, record_sms=3)
    assert plain.end == again.end == recorded.end
    assert (plain.busy == recorded.busy).all()
    assert (plain.dram_bytes, plain.l2_bytes) == (recorded.dram_bytes, recorded.l2_bytes)
    assert len(recorded.events) == 2 * 5 * 20
    assert len(run(encode(LOAD), made, limits, **options, record=17, record_sms=3).events) == 17


def test_ops_far_apart_are_remembered():
    # A load that runs 20 tiles ahead: each use still waits for its own tile.
    loads = op("k", 0, 0, after=[After(1, 21, False, 0)], runs_on=True, ahead=20, loads="k", load_bytes=1000)
    deep = program(loads, op("use", 0, 10, "tensor", after=[After(0, 0, False, 0)]))
    assert cycles(deep, work([60]), memory(l2=fixed(10.0))) == pytest.approx(60 * 100, rel=0.02)


def test_ctas_of_a_cluster_share_reads_of_l2():
    alone, pair = (run(encode(LOAD), work([4]), FREE._replace(multicast=n), sms=1, slots=1, prologue=0, tiles=8) for n in (1, 2))
    assert (alone.l2_bytes, pair.l2_bytes) == (4000, 2000)
