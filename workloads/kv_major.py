"""KV-major: the same visits seen from the keys, for kernels whose CTAs own keys and visit queries (backward, FSA, MoBA)."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ..facts import UserError
from .runs import Runs
from .schedule import Buffer, Group, TileSchedule
from .visits import visits


def by_keys(schedule: TileSchedule) -> TileSchedule:
    """The same work with owner tiles on the kv axis: one row for each tile of keys, whose runs are the queries that visit it.

    Counts of tiles and pairs stay; `max_visited` and the balance of the rows do not.

    Parameters
    ----------
    schedule : TileSchedule
        Owner tiles on the q axis, visits on a fixed grid. `kv_tile` becomes the owner tile, `q_tile` the visited one.

    Raises
    ------
    UserError
        Visits lie on no grid, or rows are those of several heads packed into a tile.

    Examples
    --------
    >>> from simattn.workloads import schedule
    >>> by_queries = schedule("causal", seq_q=512, q_tile=64, kv_tile=128)
    >>> turned = by_keys(by_queries)
    >>> turned.major, turned.q_tile, turned.visited == by_queries.visited, turned.counts.visited.tolist()
    ('kv', 128, True, [8, 6, 4, 2])
    """
    if not schedule.aligned:
        raise UserError("KV tiles start at the first key that each q tile needs: no tile of keys can own them")
    if schedule.major != "q":
        raise UserError("owner tiles are keys already")
    found = visits(schedule)
    counts = np.diff(found.row_first)
    parts: list[Runs] = []
    live: list[NDArray[np.int64]] = []
    groups: list[Group] = []
    for group in schedule.groups:
        rows = slice(group.first_row, group.first_row + group.rows)
        own = slice(found.row_first[rows.start], found.row_first[rows.stop])
        query_tile = np.repeat(np.arange(group.rows), counts[rows])
        keys = int(schedule.runs.stop[slice(*schedule.runs.indptr[[rows.start, rows.stop]])].max(initial=0))
        owners = max(-(-keys // schedule.kv_tile), 1)
        order = np.argsort(found.tile[own], kind="stable")
        start = query_tile[order] * schedule.q_tile
        parts.append(
            Runs(
                found.tile[own][order].astype(np.int64),
                start,
                schedule.row_live[rows][query_tile[order]],
                found.kind[own][order].astype(np.uint8),
                owners,
            ).joined()
        )
        live.append(np.clip(keys - np.arange(owners) * schedule.kv_tile, 0, schedule.kv_tile))
        groups.append(Group(sum(g.rows for g in groups), owners, group.copies))
    return replace(
        schedule,
        q_tile=schedule.kv_tile,
        kv_tile=schedule.q_tile,
        seq_q=schedule.seq_kv,
        seq_kv=schedule.seq_q,
        row_live=np.concatenate(live),
        runs=Runs.stack(parts),
        groups=tuple(groups),
        buffers=(Buffer("queries", 0, schedule.seq_q),),
        row_keys=None,
        box=schedule.box[::-1],
        major="kv",
    )
