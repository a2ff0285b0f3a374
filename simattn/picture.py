"""A schedule as a picture of characters."""

from __future__ import annotations

import numpy as np

from .workloads import Kind, TileSchedule

SHADES = " ░▒▓█"
"""From nothing computed to all of it."""

FINE = 16
"""Steps into which a character is cut along the keys."""


def block_picture(schedule: TileSchedule, width: int = 64) -> list[str]:
    """Lines of the first group of heads: queries downwards, keys to the right, darker where more is computed.

    Boxes of a grid are in the order in which they lie in memory.

    Examples
    --------
    >>> from simattn.workloads import schedule
    >>> for line in block_picture(schedule("causal", seq_q=1024), width=16):
    ...     print(line)
    ██
    ████
    ██████
    ████████
    ██████████
    ████████████
    ██████████████
    ████████████████
    """
    group = schedule.groups[0]
    runs = schedule.runs.take(np.array([group.first_row]), np.array([group.rows]), keep_rows=True)
    keys = schedule.buffers[-1].start + schedule.buffers[-1].tokens
    height = int(np.clip(round(width / 2 * group.rows * schedule.q_tile / max(keys, 1)), 1, min(group.rows, width // 2)))
    computed = runs.kind <= Kind.GATHER
    row = runs.row[computed] * height // group.rows
    steps = width * FINE
    begin, end = (np.minimum(edge[computed] * steps // keys, steps) for edge in (runs.start, runs.stop))
    changes = np.zeros((height, steps + 1))
    np.add.at(changes, (row, begin), 1.0)
    np.add.at(changes, (row, np.maximum(end, begin + 1).clip(max=steps)), -1.0)
    rows_of = np.bincount(np.arange(group.rows) * height // group.rows, minlength=height)
    share = np.cumsum(changes, axis=1)[:, :steps].reshape(height, width, FINE).mean(2) / rows_of[:, None]
    shade = np.where(share > 0, np.clip(np.ceil(share * (len(SHADES) - 1)), 1, len(SHADES) - 1), 0).astype(int)
    return ["".join(SHADES[s] for s in line).rstrip() for line in shade]
