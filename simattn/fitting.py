"""Tables in a terminal that is too narrow for them: columns go as a whole, since cut values and words answer nothing."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from rich.cells import cell_len
from rich.console import Console, ConsoleOptions
from rich.measure import Measurement
from rich.table import Table
from rich.text import Text


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
    _print(console, *_narrowed(console, table, spare, lambda found: found.maximum), elsewhere)


def print_wrapped(console: Console, table: Table, spare: Sequence[str], elsewhere: str) -> None:
    """Print a table with lines broken between words, and without as many of the `spare` columns as it takes to break none inside.

    >>> from rich.console import Console
    >>> from rich.table import Table
    >>> table = Table("GPU", "words", box=None, pad_edge=False)
    >>> table.add_row("h100_sxm", "NVIDIA H100")
    >>> print_wrapped(Console(width=17), table, ["words"], "--json")  # doctest: +NORMALIZE_WHITESPACE
    GPU       words
    h100_sxm  NVIDIA
              H100
    """
    fitting, left_out = _narrowed(console, table, spare, lambda found: found.minimum)
    found = console.measure(fitting, options=_unbounded(console))
    texts = [[str(column.header), *map(str, column.cells)] for column in fitting.columns]
    least = [max(cell_len(word) for text in column for word in text.split() or [""]) for column in texts]
    most = [max(cell_len(line) for text in column for line in text.splitlines() or [""]) for column in texts]
    room = console.width - (found.minimum - sum(least))
    if room >= sum(least):
        # As wide as its lines, or as all columns that are wider can be.
        widest = max(w for w in range(1, max(most) + 1) if w == 1 or _total(least, most, w) <= room)
        for column, low, high in zip(fitting.columns, least, most, strict=True):
            column.width = max(low, min(high, widest))
    _print(console, fitting, left_out, elsewhere)


def _total(least: Sequence[int], most: Sequence[int], widest: int) -> int:
    """Width of columns of which none is wider than it must be and than `widest`."""
    return sum(max(low, min(high, widest)) for low, high in zip(least, most, strict=True))


def _narrowed(
    console: Console, table: Table, spare: Sequence[str], width_of: Callable[[Measurement], int]
) -> tuple[Table, list[str]]:
    """A table without as many spare columns as it takes to fit, and which these are."""
    left_out, fitting = [], table
    for title in spare:
        if width_of(console.measure(fitting, options=_unbounded(console))) <= console.width:
            break
        if any(str(column.header) == title for column in table.columns):
            left_out.append(title)
            fitting = _without(table, left_out)
    return fitting, left_out


def _unbounded(console: Console) -> ConsoleOptions:
    return console.options.update(max_width=10_000)


def _print(console: Console, table: Table, left_out: Sequence[str], elsewhere: str) -> None:
    console.print(table, highlight=False)
    if left_out:
        titles = ", ".join(" ".join(title.split()) for title in left_out)
        console.print(Text(f"left out here: {titles} ({elsewhere} has all)", "dim"))


def _without(table: Table, titles: Sequence[str]) -> Table:
    columns = [column for column in table.columns if str(column.header) not in titles]
    made = Table(box=table.box, pad_edge=table.pad_edge, header_style=table.header_style)
    for column in columns:
        made.add_column(column.header, justify=column.justify, no_wrap=column.no_wrap, overflow=column.overflow)
    for cells in zip(*(column.cells for column in columns), strict=True):
        made.add_row(*cells)
    return made
