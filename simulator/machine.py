"""The machine, cycle by cycle: every visit of every CTA on every SM, with one L2 and one DRAM for all.

Roles issue their ops in order; an op starts when what it depends on is there and its units are free; loads queue at the port of
their SM, at L2 and, where L2 does not hold the tile, at DRAM. Time is a whole number of ticks, so a run always gives one answer.

The simulation jumps from event to event: within an SM from op to op, between SMs from load to load, since only loads and the
dispatch of CTAs are seen by other SMs. Its cost grows with the number of visits.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Any, NamedTuple

import numpy as np
from numba import njit
from numpy.typing import NDArray

from ..kernels import KINDS, UNITS, LoopProgram

TICKS = 64
"""Ticks of a cycle."""

QUEUE = 64
"""Transfers of one CTA that may be under way at a time, a power of two: more than its buffers allow."""

UP = 1 - 1e-6
"""Added to a time before its fraction is cut off: the next whole tick, but for what rounding has added to one."""

FAR = np.int64(2**50)
"""Never: hours of a GPU's time. The bits above leave room for the number of an SM beside a time."""

U = np.uint64
"""Makes an index unsigned: numba then need not check whether it counts from the end, a third of the time of the loop."""

ONE = U(1)

TENSOR, SMEM = UNITS.index("tensor"), UNITS.index("smem")

BYTE_SHIFT = 24
"""Ticks for a byte are fixed-point numbers with so many binary places."""

Ints = NDArray[np.int64]


# Columns of the tables below.
AHEAD, RUNS_ON, NEEDS_Q, PART, AFTER, AFTER_END, WAKES, WAKES_END, ISSUE_MATTERS = range(9)
OTHER, DISTANCE, ON_ISSUE, WAIT = range(4)
LENGTH, LATENCY, STEALS, BYTES = range(4)

# Of each role: loop counter, op in the body, when it can issue again, and which of its slot's CTAs it works on.
ROUND, DUE_OP, SOONEST, NUMBER = range(4)

# Of each CTA: which one it is, its visits, roles at work on it, when Q is there and its last op ends, tiles that its slot had
# before, ops that have yet to read Q for the last time, and when Q has been read.
WHICH, FIRST, VISITS, RUNNING, Q_THERE, END, BASE, Q_READERS, Q_READ = range(9)


class Code(NamedTuple):
    """A loop program as tables of whole numbers; times in ticks, first axis of `cost` and `takes` by kind of visit."""

    role_first: Ints
    """First op of each role; one more entry than roles."""
    ahead_most: Ints
    """Tiles that the foremost op of each role runs ahead."""
    op: Ints
    after: Ints
    cost: Ints
    takes: Ints
    """Ticks of each unit."""
    wakes: Ints
    """Roles that may wait for an op."""
    ring: int
    """Tiles, a power of two, for which the times of an op are remembered."""
    pieces: int
    """Loads that fetch one tile of K, or of V."""
    side_by_side: bool
    """Whether the CTAs of an SM share its units and its port op by op, rather than first come, first served."""


def encode(program: LoopProgram) -> Code:
    """A loop program as tables."""
    ops, roles = program.ops, range(len(program.roles))
    edges = [edge for op in ops for edge in op.after]
    wakes = [
        sorted({other.role for other in ops if other.role != op.role and any(e.op == number for e in other.after)})
        for number, op in enumerate(ops)
    ]
    # Times of an op are remembered for twice as many tiles as any two ops can be apart.
    furthest = max(op.ahead for op in ops) + max((edge.distance for edge in edges), default=0)
    ring = 2 ** (2 * furthest).bit_length()
    fetched = {letter: [number for number, op in enumerate(ops) if op.loads == letter] for letter in "kv"}
    pieces = max(1, *map(len, fetched.values()))
    op_table, after, wake = [], 0, 0
    for number, op in enumerate(ops):
        part = pieces * (op.loads == "v") + (fetched[op.loads].index(number) if op.loads else 0)
        row = [op.ahead, op.runs_on, op.needs_q, part, after, after + len(op.after)]
        row += [wake, wake + len(wakes[number]), any(edge.op == number and edge.on_issue for edge in edges)]
        op_table.append(row)
        after, wake = row[AFTER_END], row[WAKES_END]
    cost = [[[_ticks(op.length[k]), _ticks(op.latency[k]), _ticks(op.steals[k]), op.load_bytes[k]] for op in ops] for k in KINDS]
    return Code(
        np.array([sum(op.role < role for op in ops) for role in (*roles, len(roles))], np.int64),
        np.array([max((op.ahead for op in ops if op.role == role), default=0) for role in roles], np.int64),
        np.array(op_table, np.int64),
        np.array([[e.op, e.distance, e.on_issue, _ticks(e.wait)] for e in edges], np.int64).reshape(-1, 4),
        np.array(cost, np.int64),
        np.array([[[_ticks(op.units[kind].get(unit, 0.0)) for unit in UNITS] for op in ops] for kind in KINDS], np.int64),
        np.array([role for w in wakes for role in w], np.int64),
        ring,
        pieces,
        program.by_warps and len(roles) == 1,
    )


def _ticks(cycles: float) -> int:
    return round(cycles * TICKS)


class Memory(NamedTuple):
    """What loads cost: fixed-point ticks for a byte, latencies in ticks, and L2 as a cache of tiles."""

    port: int
    """Of the way into one SM."""
    q: int
    """Of the way of Q into one SM."""
    o: int
    """Of the way of O out of it."""
    l2: int
    dram: int
    l2_latency: int
    dram_latency: int
    capacity: int
    """K and V tiles that L2 holds."""
    multicast: int
    """CTAs that share one read of K and V from L2."""
    streams: int
    """Whether Q comes from DRAM and O goes there; otherwise they stay in L2."""
    fills: float = 0.0
    """Share of the port of shared memory that arriving bytes take from warps in step, which read through it."""


def fixed(bytes_per_cycle: float) -> int:
    """Ticks for a byte, as a fixed-point number; 0 for a rate without limit."""
    return round(TICKS / bytes_per_cycle * 2**BYTE_SHIFT) if bytes_per_cycle else 0


class Work(NamedTuple):
    """What is launched: rows with their visits, and CTAs in launch order."""

    row_first: Ints
    """First visit of each row; one more entry than rows."""
    tile: NDArray[np.int32]
    kind: NDArray[np.int8]
    row_bytes: Ints
    """Bytes of Q and of O of each row."""
    row_keys: Ints
    """End of the keys that exist for each row: what lies behind it is not fetched."""
    width: int
    """Keys of a tile."""
    cta_row: Ints
    cta_keys: Ints
    """First tile of the K and V of each CTA, among all of them."""


class Outcome(NamedTuple):
    """A simulated kernel, in ticks and bytes."""

    end: int
    busy: Ints
    """Ticks that each unit works, over all SMs."""
    dram_bytes: int
    l2_bytes: int
    events: NDArray[np.int64]
    """Recorded ops: SM, slot, op, tile, start, length, kind of visit."""


def run(
    code: Code,
    work: Work,
    memory: Memory,
    *,
    sms: int,
    slots: int,
    prologue: float,
    tiles: int,
    warm: int = 0,
    persistent: bool = False,
    stagger: float = 0.0,
    record: int = 0,
    record_sms: int = 1,
) -> Outcome:
    """Simulate a kernel.

    Parameters
    ----------
    sms, slots : int
        SMs, and CTAs that fit on one.
    prologue : float
        Cycles of a CTA before its first load; of a persistent kernel, of its first CTA, and of handing over an output.
    tiles : int
        K and V tiles that exist.
    warm : int
        Tiles that L2 holds at the start: the last ones.
    persistent : bool
        A CTA goes on to the next one by itself: loads run ahead into it, and its output is left to be stored.
    stagger : float
        Cycles by which each of the first CTAs on an SM starts after the one before it.
    record, record_sms : int
        Ops to record at most, and SMs of which. Recording changes no result.
    """
    events = np.empty((record, 7), np.int64)
    held = min(warm * code.pieces, memory.capacity)
    # Calls that differ in batch or heads alone have the same part simulated.
    key = b"" if record else _key(code, work, memory, (sms, slots, prologue, tiles, warm, persistent, stagger))
    if key in outcomes:
        return outcomes[key]
    end, dram_bytes, l2_bytes, recorded = _run(
        code,
        work,
        memory,
        sms,
        slots,
        round(prologue * TICKS),
        tiles * code.pieces,
        held,
        persistent,
        round(stagger * TICKS),
        events,
        record_sms,
    )
    if end == FAR:
        raise RuntimeError("the loop program waits for itself")
    outcome = Outcome(int(end), _busy(code, work), int(dram_bytes), int(l2_bytes), events[:recorded])
    if key:
        if len(outcomes) >= MOST_OUTCOMES:
            outcomes.clear()
        outcomes[key] = outcome
    return outcome


MOST_OUTCOMES = 2**14
"""Simulated kernels that are remembered, a few hundred bytes each."""

outcomes: dict[bytes, Outcome] = {}


def _key(code: Code, work: Work, memory: Memory, numbers: tuple[float, ...]) -> bytes:
    """A digest of all that a simulated kernel depends on."""
    tables = [table for table in (*code, *work) if isinstance(table, np.ndarray)]
    shapes = [table.shape for table in tables]
    digest = blake2b(
        repr((numbers, memory, code.ring, code.pieces, code.side_by_side, work.width, shapes)).encode(), digest_size=16
    )
    for table in tables:
        digest.update(np.ascontiguousarray(table).data)
    return digest.digest()


def _busy(code: Code, work: Work) -> Ints:
    """Ticks that each unit works: every op of every visit runs once."""
    ctas = np.bincount(work.cta_row, minlength=len(work.row_first) - 1)
    of_visit = np.repeat(ctas, np.diff(work.row_first))
    visits = np.bincount(work.kind, weights=of_visit, minlength=len(KINDS)).astype(np.int64)
    ticks: Ints = visits @ code.takes.sum(axis=1)
    return ticks


@njit(cache=True, error_model="numpy")
def _run(
    code: Any, work: Any, memory: Any, sms: int, slots: int, prologue: int, tiles: int, warm: int,
    persistent: bool, stagger: int, events: Any, record_sms: int,
) -> Any:  # fmt: skip
    # One long function, and fields taken out of their tuples once: every array that is passed or read from a tuple in the loop
    # has its references counted, which costs more than what the loop does with it.
    role_first, ahead_most, op_table, after, cost = code.role_first, code.ahead_most, code.op, code.after, code.cost
    takes, wakes, ring, pieces = code.takes, code.wakes, code.ring, code.pieces
    row_first, visit_tile, visit_kind, row_bytes = work.row_first, work.tile, work.kind, work.row_bytes
    row_keys, width = work.row_keys, work.width
    cta_row, cta_keys = work.cta_row, work.cta_keys
    port_rate, q_rate, o_rate, l2_rate, dram_rate = memory.port, memory.q, memory.o, memory.l2, memory.dram
    multicast, fills, streams = memory.multicast, memory.fills, memory.streams
    shared_rate = l2_rate // multicast
    l2_latency, dram_latency, capacity = memory.l2_latency, memory.dram_latency, memory.capacity
    roles, ops, ctas = len(role_first) - 1, len(op_table), len(cta_row)
    # Behind the roles of a slot come two more sources of events: a CTA that starts, and one that ends. Where CTAs side by side
    # take turns at units and port, there is a third source: a transfer that has passed the port.
    shared = code.side_by_side and slots > 1 and not persistent
    starts, ends, carries, wide = roles, roles + 1, roles + 2, roles + 2 + shared
    slot_of, role_of = np.arange(slots * wide) // wide, np.arange(slots * wide) % wide
    # Roles that read Q also hand the output over, before they go on to another CTA.
    query_ops, hands_over = 0, np.zeros(roles, np.bool_)
    for r in range(roles):
        for op in range(role_first[r], role_first[r + 1]):
            query_ops += op_table[op, NEEDS_Q]
            hands_over[r] |= op_table[op, NEEDS_Q] > 0
    # Two CTAs of each slot, the one before still ending while the next one starts.
    cta = np.zeros((2 * sms * slots, 9), np.int64)
    # CTAs of each slot that have been chosen, have started, and have ended; tiles of those that have started.
    opened = np.zeros(sms * slots, np.int64)
    started = np.zeros(sms * slots, np.int64)
    gone = np.zeros(sms * slots, np.int64)
    past = np.zeros(sms * slots, np.int64)
    at = np.zeros((sms * slots * roles, 4), np.int64)
    # Tiles that each op of a slot is done with, over all CTAs that it has had; and when, for the last of them.
    done = np.zeros(sms * slots * ops, np.int64)
    finished = np.zeros(sms * slots * ops * ring, np.int64)
    issued = np.zeros(sms * slots * ops * ring, np.int64)
    unit_free = np.zeros((sms, 6), np.int64)
    # Units of each op, a bit each; for machines where they are shared.
    needs = np.zeros((len(takes), ops), np.int64)
    for unit in range(6):
        needs |= (takes[:, :, unit] > 0).astype(np.int64) << unit
    # By which factor an op takes longer while something arrives: what it reads from shared memory passes the same port.
    reading = takes[:, :, SMEM] / np.maximum(cost[:, :, LENGTH], 1) / (1 - fills)
    # Of the op that each slot is at, if any: its units, ticks left at full pace, its pace, by which factor it takes
    # longer while something arrives, and when it began.
    serving = np.zeros(sms * slots, np.int64)
    left, pace = np.zeros(sms * slots), np.ones(sms * slots)
    reads = np.zeros(sms * slots)
    began = np.zeros(sms * slots, np.int64)
    # Transfers that each slot has asked for, and those that have passed; of each, in a ring: ticks left of the whole port, whose
    # it is (op and tile, or Q or O), when L2 and DRAM have sent it, the latency behind the port, and the row of its record.
    asked, passed = np.zeros(sms * slots, np.int64), np.zeros(sms * slots, np.int64)
    to_pass = np.zeros((sms * slots, QUEUE))
    target, sent = np.zeros((sms * slots, QUEUE), np.int64), np.zeros((sms * slots, QUEUE), np.int64)
    behind_port, noted = np.zeros((sms * slots, QUEUE), np.int64), np.zeros((sms * slots, QUEUE), np.int64)
    # Of each SM: the portion of its port that each transfer has, and up to when shared work has been counted.
    portion = np.ones(sms)
    settled = np.zeros(sms, np.int64)
    # When each source of events of an SM has its next one.
    ready = np.full((sms, slots * wide), FAR, np.int64)
    port_free = np.zeros(sms, np.int64)
    l2_free, dram_free, l2_bytes, dram_bytes = np.int64(0), np.int64(0), np.int64(0), np.int64(0)
    # L2: when each tile arrived, and tiles by time of their last use, as a ring through the entry `tiles`.
    arrival = np.full(tiles + 1, np.int64(-1))
    older = np.full(tiles + 1, np.int64(tiles))
    newer = np.full(tiles + 1, np.int64(tiles))
    held, overflows = warm, tiles > capacity
    for tile in range(tiles - warm, tiles):
        arrival[tile] = 0
        older[tile], newer[tile] = older[tiles], tiles
        newer[older[tile]] = tile
        older[tiles] = tile

    # A tree of SMs by their next event that others see, ties by number: node n has the sooner of nodes 2n and 2n + 1. A time and
    # the number of its SM are one whole number, so that the sooner one is found without a branch, which would be mispredicted.
    bits = 0
    while 1 << bits < sms:
        bits += 1
    leaf = U(1 << bits)
    soonest = np.full(2 << bits, FAR << bits, np.int64)
    launched, ended, recorded, last = 0, 0, 0, np.int64(0)
    for slot in range(slots):
        for sm in range(sms):
            if launched < ctas:
                resident = sm * slots + slot
                cta[2 * resident, WHICH] = launched
                opened[resident] = 1
                launched += 1
                ready[sm, slot * wide + starts] = prologue + slot * stagger
                soonest[leaf + U(sm)] = prologue << bits | sm
    for above in range((1 << bits) - 1, 0, -1):
        soonest[above] = min(soonest[2 * above], soonest[2 * above + 1])

    while soonest[1] < FAR << bits:
        sm = soonest[1] & ((1 << bits) - 1)
        granted = True
        due = FAR
        while True:
            # -- the next event of this SM ---------------------------------------------------------------------------
            index, now = 0, ready[U(sm), 0]
            for other in range(1, slots * wide):
                if ready[U(sm), U(other)] < now:
                    index, now = other, ready[U(sm), U(other)]
            if now >= FAR:
                break
            slot, role = slot_of[U(index)], role_of[U(index)]
            resident = sm * slots + slot
            arrives, begins, completes, frees = shared and role == carries, False, False, False
            if shared and settled[U(sm)] != now:
                # Shared work that was done since the event before.
                for other in range(sm * slots, sm * slots + slots):
                    left[U(other)] -= (now - settled[U(sm)]) * pace[U(other)]
                    if passed[U(other)] < asked[U(other)]:
                        to_pass[U(other), U(passed[U(other)] & (QUEUE - 1))] -= (now - settled[U(sm)]) * portion[U(sm)]
                settled[U(sm)] = now
            op, tile, kind, key = 0, 0, 0, np.int64(-1)
            if arrives:
                number = gone[U(resident)]
                mine = 2 * resident + (number & 1)
            elif role >= roles:
                number = started[U(resident)] if role == starts else gone[U(resident)]
                mine = 2 * resident + (number & 1)
                amount = row_bytes[U(cta_row[U(cta[U(mine), WHICH])])]
            else:
                own = resident * roles + role
                mine = 2 * resident + (at[U(own), NUMBER] & 1)
                op = at[U(own), DUE_OP]
                tile = at[U(own), ROUND] + op_table[U(op), AHEAD]
                kind = visit_kind[U(cta[U(mine), FIRST] + tile)]
                amount = cost[U(kind), U(op), BYTES]
                if shared and not amount:
                    completes = serving[U(resident)] > 0
                    begins = not completes and needs[U(kind), U(op)] > 0
                if amount:
                    here = visit_tile[U(cta[U(mine), FIRST] + tile)]
                    key = (cta_keys[U(cta[U(mine), WHICH])] + 2 * here) * pieces + op_table[U(op), PART]
                    behind = (here + 1) * width - row_keys[U(cta_row[U(cta[U(mine), WHICH])])]
                    if behind > 0:
                        amount = max(amount * (width - behind) // width, 1)

            # -- what other SMs see: bytes through the port, L2 and DRAM, one after the other ------------------------
            start, end = now, now
            if (amount or role >= roles) and not arrives:
                if not granted:
                    due = now
                    break
                granted = False
                rate = port_rate if key >= 0 else q_rate if role == starts else o_rate
                if not shared:
                    port_free[U(sm)] = max(port_free[U(sm)], now) + (amount * rate >> BYTE_SHIFT)
                l2_free = max(l2_free, now) + (amount * (l2_rate if key < 0 else shared_rate) >> BYTE_SHIFT)
                l2_bytes += amount if key < 0 else amount // multicast
                end = max(l2_free, port_free[U(sm)]) + l2_latency + (cost[U(kind), U(op), LATENCY] if key >= 0 else 0)
                if (streams and key < 0) or (key >= 0 and arrival[U(key)] < 0):
                    dram_free = max(dram_free, now) + (amount * dram_rate >> BYTE_SHIFT)
                    dram_bytes += amount
                    end = max(end, dram_free + dram_latency)
                if key >= 0:
                    if arrival[U(key)] >= 0:
                        # A tile on its way is waited for.
                        end = max(end, arrival[U(key)])
                        if overflows:
                            newer[U(older[U(key)])], older[U(newer[U(key)])] = newer[U(key)], older[U(key)]
                    else:
                        arrival[U(key)] = dram_free + dram_latency
                        held += 1
                        if held > capacity:
                            oldest = newer[tiles]
                            newer[tiles], older[newer[oldest]] = newer[oldest], tiles
                            arrival[oldest] = -1
                            held -= 1
                    if overflows:
                        older[U(key)], newer[U(key)] = older[tiles], tiles
                        newer[U(older[U(key)])] = key
                        older[tiles] = key
                if shared:
                    spot = asked[U(resident)] & (QUEUE - 1)
                    to_pass[U(resident), U(spot)] = amount * rate >> BYTE_SHIFT
                    sent[U(resident), U(spot)] = end
                    behind_port[U(resident), U(spot)] = l2_latency + (cost[U(kind), U(op), LATENCY] if key >= 0 else 0)
                    noted[U(resident), U(spot)] = recorded if recorded < len(events) and sm < record_sms and key >= 0 else -1
                    target[U(resident), U(spot)] = -role if key < 0 else op * 2**32 + cta[U(mine), BASE] + tile
                    asked[U(resident)] += 1
                    end = now

            first_role, stop_role = role, role + 1
            if begins:
                # -- an op begins: it shares its units with those of other CTAs -----------------------------------------
                serving[U(resident)] = needs[U(kind), U(op)]
                left[U(resident)] = cost[U(kind), U(op), LENGTH]
                reads[U(resident)] = reading[U(kind), U(op)]
                began[U(resident)] = now
                first_role = stop_role = 0
            elif arrives:
                # -- a transfer ends ------------------------------------------------------------------------------------
                spot = passed[U(resident)] & (QUEUE - 1)
                passed[U(resident)] += 1
                ready[sm, index] = FAR
                first_role = stop_role = 0
                what = target[U(resident), U(spot)]
                end = max(sent[U(resident), U(spot)], now + behind_port[U(resident), U(spot)])
                if what == -ends:
                    last = max(last, now)
                    gone[resident] += 1
                    ended += 1
                    frees = True
                else:
                    cta[U(mine), END] = max(cta[U(mine), END], end)
                    if what == -starts:
                        cta[U(mine), Q_THERE] = end
                    else:
                        other, back = what >> 32, what & (2**32 - 1)
                        finished[U((resident * ops + other) * ring + (back & (ring - 1)))] = end
                        done[U(resident * ops + other)] = back + 1
                        row = noted[U(resident), U(spot)]
                        if row >= 0:
                            events[row, 5] = end - events[row, 4]
            elif role == starts:
                # -- a CTA starts: Q is on its way, roles that are free may issue ------------------------------------
                ready[sm, index] = FAR
                row = cta_row[cta[mine, WHICH]]
                cta[mine, FIRST] = row_first[row]
                cta[mine, VISITS] = row_first[row + 1] - row_first[row]
                cta[mine, RUNNING] = roles
                cta[mine, Q_THERE] = FAR if shared else end
                cta[mine, END] = end
                cta[mine, BASE] = past[resident]
                cta[mine, Q_READERS] = query_ops if cta[mine, VISITS] else 0
                cta[mine, Q_READ] = now
                past[resident] += cta[mine, VISITS]
                started[resident] += 1
                for r in range(roles):
                    own = resident * roles + r
                    if at[own, NUMBER] == number:
                        at[own, ROUND], at[own, DUE_OP] = -ahead_most[r], role_first[r] - 1
                        at[own, SOONEST] = max(at[own, SOONEST], now)
                first_role, stop_role = 0, roles
            elif role == ends:
                # -- a CTA ends: O is on its way ---------------------------------------------------------------------
                ready[sm, index] = FAR
                cta[mine, RUNNING] = 0
                if not shared:
                    last = max(last, port_free[sm])
                    gone[resident] += 1
                    ended += 1
                    frees = True
                    next_one = 2 * resident + (gone[resident] & 1)
                    if gone[resident] < started[resident] and cta[next_one, RUNNING] == 0:
                        ready[sm, index] = max(cta[next_one, END], now)
                first_role = stop_role = 0
            else:
                # -- an op is issued ---------------------------------------------------------------------------------
                if amount:
                    at[U(own), SOONEST] = now + cost[U(kind), U(op), LENGTH]
                elif completes:
                    start, end = began[U(resident)], now + cost[U(kind), U(op), LATENCY]
                    serving[U(resident)] = 0
                    at[U(own), SOONEST] = max(end, now)
                else:
                    # All units, used or not: without a branch it is quicker than a list of those that are.
                    for unit in range(6):
                        start = max(start, unit_free[U(sm), U(unit)] if takes[U(kind), U(op), U(unit)] else now)
                    for unit in range(6):
                        taken = takes[U(kind), U(op), U(unit)]
                        unit_free[U(sm), U(unit)] = start + taken if taken else unit_free[U(sm), U(unit)]
                    lost = cost[U(kind), U(op), STEALS]
                    if lost:
                        unit_free[U(sm), TENSOR] = max(unit_free[U(sm), TENSOR], start) + lost
                    end = start + cost[U(kind), U(op), LENGTH] + cost[U(kind), U(op), LATENCY]
                    at[U(own), SOONEST] = start if op_table[U(op), RUNS_ON] else max(end, start + cost[U(kind), U(op), LENGTH])
                if recorded < len(events) and sm < record_sms:
                    events[recorded, 0], events[recorded, 1], events[recorded, 2] = sm, slot, op
                    events[recorded, 3], events[recorded, 4], events[recorded, 5] = tile, start, end - start
                    events[recorded, 6] = kind
                    recorded += 1
                if not (shared and amount):
                    place = (resident * ops + op) * ring + ((cta[U(mine), BASE] + tile) & (ring - 1))
                    finished[U(place)] = end
                    if op_table[U(op), ISSUE_MATTERS]:
                        issued[U(place)] = start
                    done[U(resident * ops + op)] = cta[U(mine), BASE] + tile + 1
                cta[U(mine), END] = max(cta[U(mine), END], end)
                if op_table[U(op), NEEDS_Q] and tile + 1 == cta[U(mine), VISITS]:
                    cta[U(mine), Q_READERS] -= 1
                    cta[U(mine), Q_READ] = max(cta[U(mine), Q_READ], end)

            # -- roles go on to their next op, of this CTA or of the slot's next one ---------------------------------
            for r in range(first_role, stop_role):
                own = resident * roles + r
                first, stop = role_first[U(r)], role_first[U(r + 1)]
                while at[U(own), NUMBER] < started[U(resident)]:
                    its = 2 * resident + (at[U(own), NUMBER] & 1)
                    visits = cta[U(its), VISITS]
                    count, following = at[U(own), ROUND], at[U(own), DUE_OP]
                    if role == starts and following >= first:
                        # It is still at work on the CTA before.
                        break
                    while True:
                        following += 1
                        if following >= stop:
                            following = first
                            count += 1
                        ahead = count + op_table[U(following), AHEAD]
                        if count >= visits or 0 <= ahead < visits:
                            break
                    at[U(own), ROUND], at[U(own), DUE_OP] = count, following
                    if count < visits:
                        break
                    ready[U(sm), U(slot * wide + r)] = FAR
                    cta[U(its), RUNNING] -= 1
                    if cta[U(its), RUNNING] == 0 and at[U(own), NUMBER] == gone[U(resident)]:
                        ready[U(sm), U(slot * wide + ends)] = cta[U(its), END]
                    at[U(own), NUMBER] += 1
                    if persistent and visits and hands_over[r]:
                        for other in range(first, stop):
                            place = (resident * ops + other) * ring + ((cta[U(its), BASE] + visits - 1) & (ring - 1))
                            at[U(own), SOONEST] = max(at[U(own), SOONEST], finished[U(place)])
                        at[U(own), SOONEST] += prologue
                    at[U(own), ROUND], at[U(own), DUE_OP] = -ahead_most[U(r)], first - 1

            # -- the slot's next CTA: when this one has ended; of a persistent kernel, when its Q has been read ------
            number = opened[U(resident)] - 1
            its = 2 * resident + (number & 1)
            if launched < ctas and number < started[U(resident)]:
                if persistent:
                    if cta[U(its), Q_READERS] == 0 and number <= gone[U(resident)]:
                        ready[sm, slot * wide + starts] = max(now, cta[its, Q_READ])
                        opened[resident] += 1
                elif frees:
                    ready[sm, slot * wide + starts] = max(port_free[sm], now) + prologue
                    opened[resident] += 1
                if opened[U(resident)] == number + 2:
                    cta[2 * resident + (opened[resident] - 1 & 1), WHICH] = launched
                    launched += 1

            # -- and when: of these roles, and of those that waited for this op --------------------------------------
            wake, wake_end = (0, 0) if role >= roles else (op_table[U(op), WAKES], op_table[U(op), WAKES_END])
            if arrives:
                first_role, stop_role = 0, roles
            r = first_role
            while r < stop_role or wake < wake_end:
                woken = arrives or r >= stop_role
                if r < stop_role:
                    looked = r
                    r += 1
                else:
                    looked = wakes[U(wake)]
                    wake += 1
                if woken and ready[U(sm), U(slot * wide + looked)] < FAR:
                    continue
                own = resident * roles + looked
                if at[U(own), NUMBER] >= started[U(resident)]:
                    continue
                its = 2 * resident + (at[U(own), NUMBER] & 1)
                following = at[U(own), DUE_OP]
                ahead = at[U(own), ROUND] + op_table[U(following), AHEAD]
                when = at[U(own), SOONEST]
                if op_table[U(following), NEEDS_Q] and ahead == 0:
                    when = max(when, cta[U(its), Q_THERE])
                base = cta[U(its), BASE]
                # What a kernel that is not persistent waits for is its own CTA's.
                earliest = 0 if persistent else base
                for edge in range(op_table[U(following), AFTER], op_table[U(following), AFTER_END]):
                    other, back = resident * ops + after[U(edge), OTHER], base + ahead - after[U(edge), DISTANCE]
                    if back >= earliest:
                        if done[U(other)] <= back:
                            when = FAR
                            break
                        place = other * ring + (back & (ring - 1))
                        noticed = (issued[U(place)] if after[U(edge), ON_ISSUE] else finished[U(place)]) + after[U(edge), WAIT]
                        when = max(when, noticed)
                ready[U(sm), U(slot * wide + looked)] = when

            # -- CTAs side by side: what of them needs the same unit, or the port, is served in turn ---------------------
            # An op that begins at once, where another one ended, will have this done.
            # An op that begins at once, where another one has ended, will have this done.
            if shared and (begins or ready[U(sm), U(slot * wide)] > now):
                carried = 0
                for other in range(sm * slots, sm * slots + slots):
                    carried += passed[U(other)] < asked[U(other)]
                portion[U(sm)] = 1.0 / max(carried, 1)
                for own in range(slots):
                    other = sm * slots + own
                    if passed[U(other)] < asked[U(other)]:
                        ticks = to_pass[U(other), U(passed[U(other)] & (QUEUE - 1))] * max(carried, 1)
                        ready[U(sm), U(own * wide + carries)] = now + np.int64(max(ticks + UP, 0.0))
                    if serving[U(other)]:
                        rivals = 0
                        for rival in range(sm * slots, sm * slots + slots):
                            rivals += (serving[U(rival)] & serving[U(other)]) > 0
                        slowed = rivals * max(reads[U(other)], 1.0) if carried else float(rivals)
                        pace[U(other)] = 1.0 / slowed
                        ticks = left[U(other)] * slowed
                        ready[U(sm), U(own * wide)] = now + np.int64(max(ticks + UP, 0.0))

        # -- SMs by their next event again ---------------------------------------------------------------------------
        node, sooner = leaf + U(sm), due << bits | sm
        soonest[node] = sooner
        while node > ONE:
            sooner = min(sooner, soonest[node ^ ONE])
            node >>= ONE
            soonest[node] = sooner
    return last if ended == ctas else FAR, dram_bytes, l2_bytes, recorded
