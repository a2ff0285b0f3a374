"""Figures as a page that needs no network, as a still picture, and in a notebook."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape
from pathlib import Path
from typing import Any

from ..facts import UserError
from .look import FONT, plotly

FORMATS = (".html", ".png")

STYLE = f"""
:root {{ color-scheme: light dark; --paper: #fff; --ink: #1f2328; --faint: #59636e; --line: #d1d9e0; --tint: #f3f5f7 }}
@media (prefers-color-scheme: dark) {{
  :root {{ --paper: #0d1117; --ink: #e6edf3; --faint: #9198a1; --line: #3d444d; --tint: #161b22 }}
}}
body {{ font: 15px/1.5 {FONT}; max-width: 1080px; margin: 24px auto; padding: 0 16px; color: var(--ink);
  background: var(--paper) }}
h1 {{ font-size: 24px; line-height: 1.25 }}
h2 {{ font-size: 19px; margin-top: 36px; border-bottom: 1px solid var(--line); padding-bottom: 4px }}
a {{ color: inherit }}
.faint {{ color: var(--faint) }}
.wide {{ overflow-x: auto }}
table {{ border-collapse: collapse }}
th, td {{ text-align: left; padding: 3px 16px 3px 0; vertical-align: top; border-bottom: 1px solid var(--line) }}
td.number, th.number {{ text-align: right; font-variant-numeric: tabular-nums; white-space: nowrap }}
.js-plotly-plot text:not(.hoverlayer text) {{ fill: var(--ink) !important }}
"""
"""Light or dark, as the reader's system is; words in figures too."""

CONFIG = {"responsive": True, "displaylogo": False, "modeBarButtonsToRemove": ["select2d", "lasso2d", "autoScale2d"]}


def as_page(title: str, parts: Sequence[Any]) -> str:
    """A page of figures and pieces of HTML, in this order, with the drawing library inside."""
    plotly()
    from plotly.offline import get_plotlyjs

    body = []
    for number, part in enumerate(parts):
        if isinstance(part, str):
            body.append(part)
        else:
            inner = part.to_html(include_plotlyjs=False, full_html=False, div_id=f"figure-{number}", config=CONFIG)
            body.append(f"<figure style='margin:0'>{inner}</figure>")
    return (
        f'<!doctype html>\n<html lang="en"><head><meta charset="utf-8"><title>{escape(title)}</title>'
        '<meta name="viewport" content="width=device-width">'
        f"<style>{STYLE}</style><script>{get_plotlyjs()}</script></head>\n<body>\n" + "\n".join(body) + "\n</body></html>\n"
    )


def save(figure: Any, path: Path) -> None:
    """Write a figure as .html, which is interactive, or as .png.

    Raises
    ------
    UserError
        The file ends otherwise, or a drawing library is not installed.
    """
    check(path)
    if path.suffix == ".png":
        from .still import draw

        path.write_bytes(draw(figure))
    else:
        path.write_text(as_page(figure.layout.title.text, [figure]), encoding="utf-8")


def check(path: Path, option: str = "--output") -> None:
    """Refuse a file that cannot be written, before anything is simulated for it."""
    if path.suffix not in FORMATS:
        raise UserError(f"{option} must end in one of {', '.join(FORMATS)}, got {path}")
    if not path.absolute().parent.is_dir():
        raise UserError(f"no such folder: {path.parent}")


def in_notebooks() -> None:
    """Have notebooks keep figures twice: interactive, and as the picture that is shown where nothing can be run."""
    plotly()
    import base64
    import json

    import plotly.io as pio
    from plotly.io.base_renderers import MimetypeRenderer

    from .still import draw

    class Both(MimetypeRenderer):  # type: ignore[misc]
        def to_mimebundle(self, figure: Any) -> dict[str, Any]:
            still = base64.b64encode(draw(plotly().Figure(figure), scale=1.5)).decode()
            plain = json.loads(pio.to_json(figure, validate=False))
            return {"application/vnd.plotly.v1+json": plain, "image/png": still}

    pio.renderers["simattn"] = Both()
    pio.renderers.default = "simattn"
