"""Tables in narrow terminals."""

from __future__ import annotations

import io

import pytest
from rich.console import Console
from rich.table import Table

from simattn.fitting import print_fitting, print_wrapped


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


@pytest.mark.parametrize(
    ("width", "left_out", "most_lines"),
    [(100, [], 2), (46, [], 3), (40, [], 3), (30, ["in words"], 2), (19, ["in words", "arch"], 2)],
)
def test_no_word_is_cut(width: int, left_out: list[str], most_lines: int) -> None:
    text = io.StringIO()
    table = Table("name", "ms", "arch", "in words", box=None, pad_edge=False)
    table.add_row("a100_sxm_40gb", "1.25", "sm80", "NVIDIA A100 SXM4")
    print_wrapped(Console(file=text, width=width), table, ("in words", "arch"), "--json")
    shown, _, told = text.getvalue().partition("left out here: ")
    assert set(shown.split()) == {
        *("name", "ms", "a100_sxm_40gb", "1.25"),
        *(() if "arch" in left_out else ("arch", "sm80")),
        *(() if "in words" in left_out else ("in", "words", "NVIDIA", "A100", "SXM4")),
    }
    assert len(shown.splitlines()) <= most_lines + ("in words" not in left_out and width < 46)
    assert all(len(line) <= width for line in shown.splitlines())
    assert " ".join(told.split()) == (f"{', '.join(left_out)} (--json has all)" if left_out else "")
