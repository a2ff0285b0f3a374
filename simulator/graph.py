"""Task graphs: what runs where and after what, of a layer, a step or a whole model.

A task is a kernel, a copy or a stretch of host work whose time is known. Tasks of one place run in the order in which they were
added, as on a CUDA stream; a task also waits for those that it names.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple

from ..facts import UserError

if TYPE_CHECKING:
    from collections.abc import Iterable

    import networkx as nx

PICOSECONDS = 10**12
"""Ticks of a second: times of tasks are whole numbers of them, so that every run gives the same answer."""


_END = -1
"""What comes after every task, when the longest chain is looked for."""


class Task(NamedTuple):
    """One piece of work.

    Attributes
    ----------
    name : str
        What it is, for the timeline.
    place : str
        Stream, copy engine, link or host thread on which it runs, such as `gpu 0` or `gpu 0 from host`.
    ticks : int
        Its time in picoseconds.
    after : tuple of int
        Numbers of the tasks that must be done before it starts, beside the one before it at its place.
    """

    name: str
    place: str
    ticks: int
    after: tuple[int, ...]


@dataclass
class TaskGraph:
    """Tasks in the order in which they are issued; each is known by its number.

    Examples
    --------
    >>> graph = TaskGraph()
    >>> copy = graph.add("copy", "link", 2e-3)
    >>> own = graph.add("own work", "gpu", 1e-3)
    >>> last = graph.add("work on what was copied", "gpu", 4e-3, after=[copy])
    >>> graph.critical_path(), graph.slack_seconds()[own]
    ([0, 2], 0.001)
    """

    tasks: list[Task] = field(default_factory=list)

    def add(self, name: str, place: str, seconds: float, after: Iterable[int] = ()) -> int:
        """Add a task, and get its number.

        Raises
        ------
        UserError
            Its time is below zero, or it waits for a task that is not there yet.
        """
        before = tuple(after)
        if not 0 <= seconds < float("inf"):
            raise UserError(f"task {name}: seconds must be finite and at least 0, got {seconds}")
        if before and not 0 <= min(before) <= max(before) < len(self.tasks):
            raise UserError(f"task {name} waits for a task that is not there: {before}")
        self.tasks.append(Task(name, place, round(seconds * PICOSECONDS), before))
        return len(self.tasks) - 1

    def places(self) -> list[str]:
        """Where tasks run, in order of first use."""
        return list(dict.fromkeys(task.place for task in self.tasks))

    def to_networkx(self) -> nx.DiGraph:
        """The graph of all that a task waits for: what it names, and the task before it at its place.

        The weight of an edge is the time of the task that it starts from, in ticks.
        """
        import networkx as nx

        graph = nx.DiGraph()
        latest: dict[str, int] = {}
        for number, task in enumerate(self.tasks):
            graph.add_node(number, name=task.name, place=task.place, ticks=task.ticks)
            for before in {*task.after, *([latest[task.place]] if task.place in latest else [])}:
                graph.add_edge(before, number, weight=self.tasks[before].ticks)
            latest[task.place] = number
        return graph

    def critical_path(self) -> list[int]:
        """Tasks of the longest chain: shortening any other task alone saves nothing."""
        import networkx as nx

        graph = self.to_networkx()
        graph.add_weighted_edges_from((number, _END, task.ticks) for number, task in enumerate(self.tasks))
        return [number for number in nx.dag_longest_path(graph) if number != _END]

    def slack_seconds(self) -> list[float]:
        """By how much each task could take longer without the whole taking longer."""
        graph = self.to_networkx()
        # Tasks stand in an order in which all that they wait for comes first.
        end = [0] * len(self.tasks)
        for number, task in enumerate(self.tasks):
            end[number] = max((end[before] for before in graph.predecessors(number)), default=0) + task.ticks
        latest = [max(end, default=0)] * len(self.tasks)
        for number in reversed(range(len(self.tasks))):
            for later in graph.successors(number):
                latest[number] = min(latest[number], latest[later] - self.tasks[later].ticks)
        return [(late - soon) / PICOSECONDS for late, soon in zip(latest, end, strict=True)]
