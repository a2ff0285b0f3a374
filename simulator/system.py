"""The system: streams, copy engines, links and host threads that work side by side, as simpy resources.

A place (a stream) takes its tasks in order, one at a time. Places that share something narrower than themselves (two copy
engines on one bus) name it as a lane, and take turns at it in the order of asking.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

import msgspec

from .graph import PICOSECONDS, TaskGraph

if TYPE_CHECKING:
    from collections.abc import Generator

    import simpy


class Span(NamedTuple):
    """A task as it ran, in ticks of a picosecond."""

    task: int
    start: int
    end: int


@dataclass(frozen=True)
class Timeline:
    """What ran when.

    Attributes
    ----------
    graph : TaskGraph
        What was to run.
    spans : tuple of Span
        By number of the task.
    """

    graph: TaskGraph
    spans: tuple[Span, ...]

    @property
    def seconds(self) -> float:
        """Until the last task is done."""
        return max((span.end for span in self.spans), default=0) / PICOSECONDS

    def busy_seconds(self) -> dict[str, float]:
        """Time that each place works."""
        busy = dict.fromkeys(self.graph.places(), 0)
        for span, task in zip(self.spans, self.graph.tasks, strict=True):
            busy[task.place] += span.end - span.start
        return {place: ticks / PICOSECONDS for place, ticks in busy.items()}

    def to_json(self) -> bytes:
        """The timeline in the event format that Perfetto and chrome://tracing open; one event a line."""
        threads = {place: number for number, place in enumerate(self.graph.places(), 1)}
        events: list[dict[str, Any]] = [
            {"ph": "M", "pid": 1, "tid": thread, "name": "thread_name", "args": {"name": place}}
            for place, thread in threads.items()
        ]
        for span, task in zip(self.spans, self.graph.tasks, strict=True):
            event = {"ph": "X", "name": task.name, "cat": "task", "pid": 1, "tid": threads[task.place]}
            events.append({**event, "ts": span.start / 1e6, "dur": (span.end - span.start) / 1e6})
        lines = b",\n".join(msgspec.json.encode(event) for event in events)
        return b'{"displayTimeUnit":"ns","traceEvents":[\n' + lines + b"\n]}\n"


def run(graph: TaskGraph, lanes: Mapping[str, str] | None = None) -> Timeline:
    """Run a task graph.

    Parameters
    ----------
    graph : TaskGraph
        Tasks, in order of issue.
    lanes : mapping, optional
        What a place shares with other places, by place: of those with the same lane only one works at a time.

    Returns
    -------
    Timeline

    Examples
    --------
    >>> graph = TaskGraph()
    >>> copies = [graph.add(f"copy {i}", "copy engine", 2e-3) for i in range(3)]
    >>> work = [graph.add(f"work {i}", "gpu", 3e-3, after=[copies[i]]) for i in range(3)]
    >>> run(graph).seconds
    0.011
    """
    import simpy

    environment = simpy.Environment()
    done = [environment.event() for _ in graph.tasks]
    spans: list[Span | None] = [None] * len(graph.tasks)
    shared = {lane: simpy.Resource(environment) for lane in set((lanes or {}).values())}

    def place(name: str) -> Generator[simpy.Event, Any, None]:
        lane = shared.get((lanes or {}).get(name, ""))
        for number, task in enumerate(graph.tasks):
            if task.place != name:
                continue
            for before in task.after:
                yield done[before]
            turn = lane.request() if lane else None
            if turn is not None:
                yield turn
            start = environment.now
            yield environment.timeout(task.ticks)
            if lane and turn is not None:
                lane.release(turn)
            spans[number] = Span(number, int(start), int(environment.now))
            done[number].succeed()

    for name in graph.places():
        environment.process(place(name))
    environment.run()
    return Timeline(graph, tuple(span for span in spans if span is not None))
