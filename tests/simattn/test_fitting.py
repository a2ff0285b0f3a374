"""Tables in narrow terminals."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table

from simattn.fitting import print_fitting


@pytest.mark.parametrize(
    ("width", "titles", "left_out"),
    [
        (40, ["GPU", "band", "kept", "ms"], ""),
        (34, ["GPU", "kept", "ms"], "left out here: band (--csv has all)"),
        (16, ["GPU", "ms"], "left out here: band, kept"),
    ],
)
def test_columns_go_as_a_whole(width: int, titles: list[str], left_out: str) -> None:
    text = io.StringIO()
    table = Table("GPU", "band", "kept", "ms", box=None, pad_edge=False)
    table.add_row("h100_sxm", "1.00 ms to 2.00 ms", "12 %", "1.25")
    print_fitting(Console(file=text, width=width), table, ("band", "kept"), "--csv")
    lines = text.getvalue().splitlines()
    assert lines[0].split() == titles
    assert "…" not in text.getvalue()
    assert "h100_sxm" in lines[1]
    assert left_out in text.getvalue().replace(" \n", " ")
