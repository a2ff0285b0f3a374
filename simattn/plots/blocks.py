"""The tiles that a kernel visits."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..workloads import TileSchedule
from .look import EMPTY, FULL, PARTIAL, figure

PIXELS = 1024
"""Tiles along a side that a picture shows one by one; beyond, it shows the share of tiles that are computed."""

SIDE = 560
"""Pixels of the longer side."""

SLIM = 2.5
"""Ratio of the sides up to which a picture keeps its shape."""


def blocks_figure(schedule: TileSchedule, title: str) -> Any:
    """The tiles of the first group of heads: queries downwards, keys to the right (the other way where keys own).

    Raises
    ------
    UserError
        The schedule lies on no grid of tiles.
    """
    computed, full = schedule.to_mask()[0], schedule.full_mask()[0]
    caption = (
        f"{title}: {computed.sum():,} of {computed.size:,} tiles of {schedule.q_tile} x {schedule.kv_tile} "
        f"({100 * computed.mean():.1f} %), {full.sum():,} without a mask"
    )
    scale: list[Any]
    if max(computed.shape) <= PIXELS:
        cells: Any = np.where(full, 2, np.where(computed, 1, 0)).astype(np.uint8)
        scale = [[0, EMPTY], [1 / 3, EMPTY], [1 / 3, PARTIAL], [2 / 3, PARTIAL], [2 / 3, FULL], [1, FULL]]
        bar: dict[str, Any] = {"tickvals": [1 / 3, 1, 5 / 3], "ticktext": ["skipped", "partial", "full"]}
        top = 2
    else:
        cells, bar, top = _percent(computed), {"title": {"text": "tiles computed, %"}}, 100
        scale = [[0, EMPTY], [1, FULL]]
    ratio = schedule.q_tile / schedule.kv_tile
    tall = ratio * computed.shape[0] / computed.shape[1]
    drawn = figure(caption, height=round(SIDE * min(1.0, max(tall, 1 / SLIM))) + 130)
    drawn.update_layout(title_font_size=13)
    step = (computed.shape[0] / cells.shape[0], computed.shape[1] / cells.shape[1])
    drawn.add_heatmap(
        z=cells,
        colorscale=scale,
        zmin=0,
        zmax=top,
        colorbar={**bar, "outlinewidth": 0, "thickness": 14, "len": 0.5, "y": 1, "yanchor": "top"},
        x0=step[1] / 2,
        dx=step[1],
        y0=step[0] / 2,
        dy=step[0],
        hovertemplate="row %{y:.0f}, column %{x:.0f}<extra></extra>",
    )
    down, across = f"q tile, {schedule.q_tile} queries each", f"kv tile, {schedule.kv_tile} keys each"
    if schedule.major == "kv":
        down, across = f"kv tile, {schedule.q_tile} keys each", f"q tile, {schedule.kv_tile} queries each"
    drawn.update_xaxes(title_text=across, constrain="domain", showgrid=False)
    drawn.update_yaxes(title_text=down, autorange="reversed", constrain="domain", showgrid=False)
    if 1 / SLIM <= tall <= SLIM:
        # A token is as high as it is wide, whatever the tiles are.
        drawn.update_yaxes(scaleanchor="x", scaleratio=ratio)
    return drawn


def _percent(mask: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Share of computed tiles in each cell of a picture of at most PIXELS cells a side, in percent; at least 1 where any is."""
    step = -(-max(mask.shape) // PIXELS)
    padded = np.pad(mask, [(0, -n % step) for n in mask.shape])
    rows, columns = (n // step for n in padded.shape)
    share = padded.reshape(rows, step, columns, step).mean((1, 3))
    return np.where(share > 0, np.maximum(np.round(100 * share), 1), 0).astype(np.uint8)
