"""Rows as JSON for programs, or as a table for people."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import click

T = TypeVar("T")


def print_rows(header: Sequence[str], rows: Sequence[dict[str, Any]], *, as_json: bool) -> None:
    """Print rows of the same keys; `header` titles the columns of the table."""
    if as_json:
        click.echo(json.dumps(rows))
        return
    from ..report import print_table

    print_table(header, [[", ".join(v) if isinstance(v, list) else v for v in row.values()] for row in rows])


def with_progress(total: int, work: Callable[[Callable[[str, int, int], None]], T]) -> T:
    """Run `work` beside a bar on stderr, where somebody watches; it tells its argument what it is at, and how much is done."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total)

        def progress(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done)

        return work(progress)
