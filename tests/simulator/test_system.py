"""Task graphs and the system that runs them, against closed forms."""

from __future__ import annotations

import json

import networkx as nx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simattn.facts import UserError
from simattn.simulator.graph import PICOSECONDS, TaskGraph
from simattn.simulator.system import run


def pipeline(copies: list[float], work: list[float], *, overlap: bool) -> TaskGraph:
    """Work on one piece after the other, each copied beforehand; without overlap a copy waits for the work before it."""
    graph = TaskGraph()
    before: list[int] = []
    for number, (copy, own) in enumerate(zip(copies, work, strict=True)):
        fetched = graph.add(f"copy {number}", "copy engine", copy, after=() if overlap else before)
        before = [graph.add(f"work {number}", "gpu", own, after=[fetched])]
    return graph


def test_no_overlap_is_the_sum() -> None:
    assert run(pipeline([2e-3] * 5, [3e-3] * 5, overlap=False)).seconds == pytest.approx(25e-3, abs=1e-12)


def test_full_overlap_is_the_longer_of_the_two_and_the_first_copy() -> None:
    assert run(pipeline([2e-3] * 5, [3e-3] * 5, overlap=True)).seconds == pytest.approx(2e-3 + 15e-3, abs=1e-12)
    assert run(pipeline([3e-3] * 5, [2e-3] * 5, overlap=True)).seconds == pytest.approx(15e-3 + 2e-3, abs=1e-12)


def test_pure_transfer_is_bytes_over_bandwidth() -> None:
    graph = TaskGraph()
    for number in range(4):
        graph.add(f"copy {number}", "copy engine", 64e6 / 55e9)
    assert run(graph).seconds == pytest.approx(4 * 64e6 / 55e9, rel=1e-9)


def test_copy_engines_on_one_bus_take_turns() -> None:
    graph = TaskGraph()
    graph.add("in", "from host", 1e-3)
    graph.add("out", "to host", 1e-3)
    assert run(graph).seconds == pytest.approx(1e-3)
    assert run(graph, {"from host": "bus", "to host": "bus"}).seconds == pytest.approx(2e-3)


def test_a_stream_keeps_its_order() -> None:
    graph = TaskGraph()
    late = graph.add("late", "link", 5e-3)
    first = graph.add("waits", "gpu", 1e-3, after=[late])
    second = graph.add("could go", "gpu", 1e-3)
    spans = run(graph).spans
    assert spans[second].start == spans[first].end == 6 * 10**9


tasks = st.lists(
    st.tuples(st.sampled_from("abc"), st.integers(0, 1000), st.sets(st.integers(0, 30), max_size=3)), min_size=1, max_size=30
)


@given(tasks)
@settings(max_examples=200, deadline=None)
def test_run_ends_with_the_critical_path(found: list[tuple[str, int, set[int]]]) -> None:
    graph = TaskGraph()
    for number, (place, nanoseconds, after) in enumerate(found):
        graph.add(f"t{number}", place, nanoseconds * 1e-9, after=[a for a in after if a < number])
    timeline = run(graph)
    path = graph.critical_path()
    assert timeline.seconds == sum(graph.tasks[number].ticks for number in path) / PICOSECONDS
    assert nx.is_directed_acyclic_graph(graph.to_networkx())
    slack = graph.slack_seconds()
    assert min(slack) >= 0
    assert all(slack[number] == 0 for number in path)
    longest = nx.dag_longest_path_length(graph.to_networkx()) if len(found) > 1 else 0
    assert longest <= timeline.seconds * PICOSECONDS + 0.5


def test_timeline_is_a_chrome_trace() -> None:
    events = json.loads(run(pipeline([2e-3] * 2, [3e-3] * 2, overlap=True)).to_json())["traceEvents"]
    assert [e["args"]["name"] for e in events if e["ph"] == "M"] == ["copy engine", "gpu"]
    works = [e for e in events if e["ph"] == "X"]
    assert [(e["name"], e["ts"], e["dur"]) for e in works][1] == ("work 0", 2000.0, 3000.0)


def test_bad_tasks() -> None:
    graph = TaskGraph()
    with pytest.raises(UserError, match="waits for a task that is not there"):
        graph.add("x", "gpu", 1.0, after=[0])
    with pytest.raises(UserError, match="at least 0, got -1"):
        graph.add("x", "gpu", -1.0)
