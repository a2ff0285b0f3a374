import json
from collections import defaultdict
from itertools import groupby, pairwise

import numpy as np
import pytest
from simattn.hwspecs import gpus
from simattn.kernels import UNITS, kernels
from simattn.simulator import Setting, predict, question, simulate
from simattn.simulator import trace as room
from simattn.simulator.machine import TICKS
from simattn.simulator.trace import trace
from simattn.simulator.waterfall import record
from simattn.workloads import Attention

CALLS = {
    "two CTAs an SM": ("a100", "causal", "fa2", {"seq_q": 8192, "q_heads": 8, "kv_heads": 2}),
    "ping-pong": ("h100", "causal", "fa3", {"seq_q": 8192, "q_heads": 6, "kv_heads": 6}),
    "contention": ("h100", "sliding_window", "cudnn_hopper", {"seq_q": 8192, "q_heads": 6, "kv_heads": 6}),
    "serial": ("h100", "causal", "triton", {"seq_q": 8192, "q_heads": 4, "kv_heads": 4, "head_dim": 64}),
    "tensor memory": ("b200", "causal", "fa4", {"seq_q": 8192, "q_heads": 10, "kv_heads": 10}),
    "boxes": ("b200", "gna", "natten_blackwell", {"grid": (16, 32, 32), "q_heads": 3, "params": {"window": (8, 16, 16)}}),
    "split keys": ("a100", "causal", "fa2_split", {"seq_q": 1, "seq_kv": 32768, "q_heads": 8, "kv_heads": 8}),
    "blocks": ("h100", "radial", "flashinfer_bsr_fa3", {"grid": (8, 16, 32), "text": 256, "q_heads": 4}),
}


def ask(name):
    hw, pattern, kernel, shape = CALLS[name]
    if kernel not in kernels.names():
        pytest.skip(f"no kernel {kernel}")
    return question(pattern, **shape), gpus.load(hw), kernel


def recording(name, ops, sms):
    """The kernel of a call, simulated and recorded, without what `trace` makes of it."""
    asked, spec, kernel = ask(name)
    setting = Setting(clock="burst", fidelity="bound")
    called = simulate(asked, spec, kernel=kernel, setting=setting)
    op = next(op for op in called.plan if isinstance(op, Attention))
    choice = called.choice if op.mask_class == asked.pattern.family.mask_class() else called.helper
    return record(choice.spec, choice, op.schedule, asked.problem, setting, ops=ops, sms=sms)


@pytest.fixture(scope="module", params=CALLS)
def name(request):
    return request.param


@pytest.fixture(scope="module")
def whole(name):
    """Every op on every SM."""
    asked, spec, kernel = ask(name)
    found = trace(asked, spec, kernel=kernel, sms=spec.chip.sm_count, events=10**7)
    assert not found.about["capped"]
    return found


def by(spans, key):
    found = defaultdict(list)
    for span in spans:
        found[key(span)].append(span)
    return found


def test_the_calls_are_what_they_are_called():
    assert recording("two CTAs an SM", 0, 1).sm.ctas == 2
    assert any(op.steals["plain"] for op in recording("contention", 0, 1).sm.program.ops)
    assert len({recording(name, 0, 1).sm.program.name for name in CALLS}) >= 4


def test_recording_changes_no_result(name):
    plain = recording(name, 0, 1).outcome
    assert len(plain.events) == 0
    for ops, sms in ((1, 1), (1000, 2), (10**6, 2), (10**6, 10**4)):
        watched = recording(name, ops, sms).outcome
        assert (watched.end, watched.dram_bytes, watched.l2_bytes) == (plain.end, plain.dram_bytes, plain.l2_bytes)
        assert watched.busy.tolist() == plain.busy.tolist()
        assert 0 < len(watched.events) <= ops
        assert watched.events[:, 0].max() < sms


def test_a_longer_recording_begins_like_a_shorter_one(name):
    short, long = (recording(name, ops, 3).outcome.events for ops in (200, 20_000))
    assert np.array_equal(short, long[: len(short)])


def test_a_role_does_one_thing_after_the_other(name):
    found = recording(name, 10**6, 2)
    ops = found.sm.program.ops
    rows = sorted(found.outcome.events.tolist(), key=lambda row: (row[0], row[1], ops[row[2]].role))
    for _, own in groupby(rows, key=lambda row: (row[0], row[1], ops[row[2]].role)):
        for (_, _, op, _, start, length, _), following in pairwise(own):
            on = ops[op].runs_on or ops[op].loads
            assert following[4] >= start + (0 if on else length)


def test_work_of_the_units_adds_up_to_what_the_machine_counts(name, whole):
    outcome = recording(name, 0, 1).outcome
    work = by((s for s in whole.spans if s.category == "unit"), lambda span: span.track.number)
    assert {UNITS[unit]: sum(span.length for span in own) for unit, own in work.items()} == {
        unit: ticks for unit, ticks in zip(UNITS, outcome.busy.tolist(), strict=True) if ticks
    }
    assert whole.about["kernel_ticks"] == outcome.end


def test_nothing_overlaps_on_a_track(whole):
    for track, own in by(whole.spans, lambda span: span.track).items():
        for span, following in pairwise(own):
            assert following.start >= span.start + span.length, track


def test_a_unit_of_an_sm_is_one_track(whole):
    units = by((s for s in whole.spans if s.category in ("unit", "lost")), lambda span: (span.track.sm, span.track.number))
    assert all(len({span.track for span in own}) == 1 for own in units.values())
    assert {span.track.group for own in units.values() for span in own} == {0}


@pytest.mark.parametrize(("load", "product"), [("k", "qk"), ("v", "pv")])
def test_no_product_starts_before_its_keys_are_there(whole, load, product):
    visit = ("slot", "cta", "visit")
    ends = {(s.track.sm, *(s.about[key] for key in visit)): s.start + s.length for s in whole.spans if s.name == f"load {load}"}
    products = [s for s in whole.spans if s.category == "op" and s.name.split()[0] == product]
    assert len(products) >= len(ends) > 100
    for span in products:
        assert span.start >= ends[(span.track.sm, *(span.about[key] for key in visit))]


def test_every_visit_of_every_cta_is_there(whole):
    loads = [s for s in whole.spans if s.name == "load k"]
    assert len(loads) == whole.about["visits_simulated"] == whole.about["visits"]
    ctas = {(s.track.sm, s.about["slot"], s.about["cta"]) for s in loads}
    visits = by(loads, lambda s: (s.track.sm, s.about["slot"], s.about["cta"]))
    assert all(sorted(s.about["visit"] for s in own) == list(range(len(own))) for own in visits.values())
    filled = -(-len(ctas) // whole.about["sms"])
    assert max(slot for _, slot, _ in ctas) + 1 == min(whole.about["ctas_per_sm"], filled)


def test_the_time_is_that_of_fidelity_cycle():
    asked, spec, kernel = ask("ping-pong")
    shape = {"seq_q": 8192, "q_heads": 6, "kv_heads": 6}
    stages = predict("causal", spec, kernel=kernel, fidelity="cycle", clock="burst", **shape).waterfall
    us = next(stage.latency_ms for stage in stages if stage.stage == "schedule") * 1e3
    assert trace(asked, spec, kernel=kernel).about["kernel_us"] == pytest.approx(us, rel=1e-12)


def test_without_a_kernel_it_is_the_one_that_predict_takes():
    for pattern in ("dense", "causal", "sliding_window", "radial"):
        shape = {"seq_q": 2048, "q_heads": 2, "kv_heads": 2} if pattern != "radial" else {"grid": (4, 16, 32), "q_heads": 2}
        found = trace(question(pattern, **shape), gpus.load("h100"), events=100)
        assert found.about["kernel"] == predict(pattern, "h100", **shape).kernel


@pytest.mark.parametrize("most", [1, 2, 7, 1000, 3000])
def test_the_cap_holds(most):
    asked, spec, kernel = ask("contention")
    capped, free = trace(asked, spec, kernel=kernel, events=most), trace(asked, spec, kernel=kernel)
    assert len(capped.spans) == capped.about["events"] <= most < len(free.spans)
    assert (capped.about["capped"], free.about["capped"]) == (True, False)
    assert capped.spans == free.spans[: len(capped.spans)]
    assert capped.about["kernel_ticks"] == free.about["kernel_ticks"]
    assert sum(e["ph"] == "X" for e in json.loads(capped.to_json())["traceEvents"]) == len(capped.spans)


def test_the_cap_that_just_fits_caps_nothing():
    asked, spec, kernel = ask("contention")
    most = len(trace(asked, spec, kernel=kernel).spans)
    assert not trace(asked, spec, kernel=kernel, events=most).about["capped"]
    assert trace(asked, spec, kernel=kernel, events=most - 1).about["capped"]


def test_the_file(whole):
    content = json.loads(whole.to_json())
    assert content["otherData"] == whole.about
    events = content["traceEvents"]
    shown = [e for e in events if e["ph"] == "X"]
    assert len(shown) == len(whole.spans)
    threads = {(e["pid"], e["tid"]): e["args"]["name"] for e in events if e["name"] == "thread_name"}
    processes = {e["pid"]: e["args"]["name"] for e in events if e["name"] == "process_name"}
    assert len(set(processes.values())) == len(processes) == whole.about["sms"]
    assert len(threads) == len({tid for _, tid in threads})
    assert 0 not in processes
    for pid, own in by_process(threads).items():
        assert len(set(own)) == len(own), pid
        assert {"unit tensor", "unit ex2"} <= set(own)
    for kind in ("process", "thread"):
        places = [(e["pid"], e["args"]["sort_index"]) for e in events if e["name"] == f"{kind}_sort_index"]
        assert len(set(places)) == len(places) == len(processes if kind == "process" else threads)
    last = defaultdict(float)
    for event in shown:
        key = event["pid"], event["tid"]
        assert key in threads
        assert event["dur"] >= 0
        # As Perfetto reads them: whole nanoseconds. It drops what overlaps.
        begin, length = int(event["ts"] * 1000), int(event["dur"] * 1000)
        assert begin >= last[key]
        last[key] = begin + length
    assert max(e["ts"] + e["dur"] for e in shown) == pytest.approx(whole.about["traced_us"], abs=1e-5)
    assert whole.about["traced_us"] < whole.about["kernel_us"]


def by_process(threads):
    found = defaultdict(list)
    for (pid, _), name in threads.items():
        found[pid].append(name)
    return found


def test_times_are_cycles_of_the_burst_clock():
    asked, spec, kernel = ask("ping-pong")
    found = trace(asked, spec, kernel=kernel, sms=1)
    assert found.hz == spec.clock_hz("burst")
    first = next(s for s in found.spans if s.category == "op" and s.name.startswith("softmax"))
    event = next(e for e in json.loads(found.to_json())["traceEvents"] if e["ph"] == "X" and e["name"] == first.name)
    assert event["ts"] == pytest.approx(first.start / TICKS / spec.clock_hz("burst") * 1e6, abs=1e-6)
    assert event["dur"] == pytest.approx(first.length / TICKS / spec.clock_hz("burst") * 1e6, abs=2e-6)


def test_a_kernel_with_fewer_ctas_than_sms_leaves_some_idle():
    asked = question("causal", seq_q=64, q_heads=1, kv_heads=1)
    found = trace(asked, gpus.load("h100"), sms=500)
    assert (found.about["sms_traced"], {span.track.sm for span in found.spans}) == (132, {0})
    names = [e["args"]["name"] for e in json.loads(found.to_json())["traceEvents"] if e["name"] == "process_name"]
    assert len(names) == 132


def test_masked_visits_are_named():
    asked, spec, kernel = ask("ping-pong")
    kinds = {s.about["kind"] for s in trace(asked, spec, kernel=kernel).spans}
    assert kinds == {"plain", "masked"}


@pytest.mark.parametrize(
    ("heads", "kv_heads", "most", "kept"), [(12, 12, 2000, 3), (12, 4, 2000, 3), (12, 3, 2600, 4), (8, 8, 10, 1)]
)
def test_of_a_large_call_some_heads_are_simulated(monkeypatch, heads, kv_heads, most, kept):
    asked = question("causal", seq_q=4096, q_heads=heads, kv_heads=kv_heads)
    monkeypatch.setattr(room, "MOST_VISITS", most)
    found = trace(asked, gpus.load("h100"), kernel="fa3").about
    assert (found["heads_simulated"], found["heads"]) == (kept, heads)
    assert found["visits_simulated"] * heads == found["visits"] * kept
    assert found["visits_simulated"] <= most or kept == 1


def test_of_many_sequences_the_first_ones_are_simulated(monkeypatch):
    monkeypatch.setattr(room, "MOST_VISITS", 1000)
    lengths = (4096, 2048, 4096, 1024, 1024)
    asked = question("ragged", seq_q=sum(lengths), q_heads=2, kv_heads=2, params={"lengths": lengths})
    found = trace(asked, gpus.load("h100")).about
    assert 0 < found["visits_simulated"] <= 1000 < found["visits"]
    assert (found["heads_simulated"], found["heads"]) == (2, 10)
