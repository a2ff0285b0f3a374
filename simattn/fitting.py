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
    >>> table.add_row("h100_sxm", "1.00 ms to 2.00 ms", "1.25")
    >>> print_fitting(Console(width=30), table, ["band"], "--csv")
    GPU       ms
    h100_sxm  1.25
    left out here: band (--csv has all)
    """
    from rich.text import Text

    left_out = []
    for title in spare:
        if console.measure(table, options=console.options.update(max_width=10_000)).maximum <= console.width:
            break
        kept = [column for column in table.columns if str(column.header) != title]
        if len(kept) < len(table.columns):
            table.columns = kept
            left_out.append(title)
    console.print(table, highlight=False)
    if left_out:
        console.print(Text(f"left out here: {', '.join(left_out)} ({elsewhere} has all)", "dim"))
