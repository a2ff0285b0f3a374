"""Tables in a terminal that is too narrow for them: columns go as a whole, since cut values answer nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


def print_fitting(console: Console, table: Table, spare: Sequence[str], elsewhere: str) -> None:
    """Print a table without as many of the `spare` columns, first to last, as it takes to fit; `elsewhere` has them all.

    >>> from rich.console import Console
    >>> from rich.table import Table
    >>> table = Table("GPU", "band", "ms", box=None, pad_edge=False)
    >>> table.add_row("h100_sxm", "1.00 ms to 2.00 ms, nine in ten", "1.25")
    >>> print_fitting(Console(width=36), table, ["band"], "--csv")  # doctest: +NORMALIZE_WHITESPACE
    GPU       ms
    h100_sxm  1.25
    left out here: band (--csv has all)
    """
    from rich.text import Text

    wide, left_out, fitting = console.options.update(max_width=10_000), [], table
    for title in spare:
        if console.measure(fitting, options=wide).maximum <= console.width:
            break
        if any(str(column.header) == title for column in table.columns):
            left_out.append(title)
            fitting = _without(table, left_out)
    console.print(fitting, highlight=False)
    if left_out:
        console.print(Text(f"left out here: {', '.join(left_out)} ({elsewhere} has all)", "dim"))


def _without(table: Table, titles: Sequence[str]) -> Table:
    from rich.table import Table

    columns = [column for column in table.columns if str(column.header) not in titles]
    made = Table(box=table.box, pad_edge=table.pad_edge, header_style=table.header_style)
    for column in columns:
        made.add_column(column.header, justify=column.justify, no_wrap=column.no_wrap, overflow=column.overflow)
    for cells in zip(*(column.cells for column in columns), strict=True):
        made.add_row(*cells)
    return made
