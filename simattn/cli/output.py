"""Rows as JSON, CSV or HTML for programs and pages, or as a table for people."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from typing import Any, Literal, TypeVar

import click

F = TypeVar("F", bound=Callable[..., Any])
Form = Literal["table", "json", "csv", "html"]


def row_formats(function: F) -> F:
    """`--json`, `--csv` and `--html` of a command that prints rows; it gets one of them, or `table`, as `form`."""

    def chosen(ctx: click.Context, param: click.Parameter, value: bool) -> None:
        before = ctx.params.setdefault("form", "table")
        if value:
            if before != "table":
                raise click.UsageError(f"give either --{before} or --{param.name}")
            ctx.params["form"] = param.name

    for name, text in (("html", "a page with one table"), ("csv", "comma-separated values"), ("json", "one JSON array")):
        option = click.option(f"--{name}", is_flag=True, expose_value=False, callback=chosen, help=f"Print {text}.")
        function = option(function)
    return function


def print_rows(header: Sequence[str], rows: Sequence[dict[str, Any]], *, form: Form = "table", title: str = "simattn") -> None:
    """Print rows of the same keys; `header` titles the columns of a table or page, JSON and CSV have the keys."""
    if form == "json":
        click.echo(json.dumps(rows))
        return
    cells = [{key: ", ".join(map(str, v)) if isinstance(v, list | tuple) else v for key, v in row.items()} for row in rows]
    if form == "csv":
        from ..tables import as_csv

        click.echo(as_csv(list(rows[0]) if rows else header, cells), nl=False)
    elif form == "html":
        from ..tables import as_html

        click.echo(as_html(header, [list(row.values()) for row in cells], title), nl=False)
    else:
        from ..report import print_table

        print_table(header, [list(row.values()) for row in cells])


@contextmanager
def progress_bar(what: str = "", total: float | None = None, *, visible: bool = True) -> Iterator[Callable[..., None]]:
    """A bar on stderr, where somebody watches: what is done, how much of it, and the time left.

    What it gives changes it, by `description`, `completed`, `advance`, `total` and `visible`.
    """
    if not sys.stderr.isatty():
        yield lambda **changes: None
        return
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn(compact=True))
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        yield partial(bar.update, bar.add_task(what, total=total, visible=visible))
