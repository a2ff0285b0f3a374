"""Rows as text that other programs read: CSV, and HTML pages."""

from __future__ import annotations

import csv
import html
import io
from collections.abc import Sequence
from typing import Any


def as_csv(names: Sequence[str], rows: Sequence[dict[str, Any]]) -> str:
    """Rows as comma-separated values, under the names of their keys.

    >>> as_csv(["a", "b"], [{"a": 1, "b": None}])
    'a,b\\n1,\\n'
    """
    text = io.StringIO()
    writer = csv.DictWriter(text, list(names), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue()


def as_html(titles: Sequence[str], rows: Sequence[Sequence[Any]], heading: str, meta: dict[str, str] | None = None) -> str:
    """Rows as a page with one table, that opens anywhere."""
    head = "".join(f"<th>{html.escape(title)}</th>" for title in titles)
    body = "\n".join("<tr>" + "".join(_html_cell(value) for value in row) + "</tr>" for row in rows)
    about = "".join(f'<meta name="{html.escape(name)}" content="{html.escape(text)}">\n' for name, text in (meta or {}).items())
    return (
        f'<!doctype html>\n<html lang="en">\n<meta charset="utf-8">\n{about}<title>{html.escape(heading)}</title>\n{STYLE}'
        f"<h1>{html.escape(heading)}</h1>\n<table>\n<thead><tr>{head}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table>\n</html>\n"
    )


STYLE = """<style>
:root { color-scheme: light dark }
body { font: 14px/1.4 system-ui, sans-serif; margin: 1.5em }
table { border-collapse: collapse; font-variant-numeric: tabular-nums }
th { position: sticky; top: 0; background: Canvas; text-align: left; vertical-align: bottom }
th, td { padding: .2em .7em; border-bottom: 1px solid color-mix(in srgb, CanvasText 20%, transparent); white-space: nowrap }
td.n { text-align: right }
</style>
"""


def _html_cell(value: Any) -> str:
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"<td>{'' if value is None else html.escape(str(value))}</td>"
    text = f"{value:,}" if isinstance(value, int) else f"{value:,.4g}" if abs(value) < 1e4 else f"{value:,.0f}"
    return f'<td class="n">{text}</td>'
