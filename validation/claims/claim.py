"""Claim: one figure that a published system reports for itself, with all that is known of its setting."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct

TABLE = Path(__file__).parent.parent / "system_results.jsonl"
"""The claims, one JSON object a line; where and how each was read is in its `source` and `source_kind`."""

UNITS = {"us": 1e-6, "ms": 1e-3, "s": 1.0, "ms/token": 1e-3}
"""Seconds of a unit of time; every other unit is taken as it stands."""


class Claim(Struct, frozen=True, kw_only=True):
    """One row of the table. A field that its source does not state is None.

    Attributes
    ----------
    id : str
        System and number within it, in the order of the table.
    value : float, str or None
        As printed: a number, a range (`1.9-2.6`), several numbers, or none.
    seq_len, batch, head_dim, sparsity
        Numbers where the source gives one, words where it gives more.
    recalled_fields
        Fields filled in from memory.
    """

    id: str = ""
    system: str
    claim: str
    metric: str
    value: float | str | None = None
    unit: str | None = None
    baseline: str | None = None
    gpu: str | None = None
    gpus: int | str | None = None
    model: str | None = None
    phase: str | None = None
    dtype: str | None = None
    batch: int | str | None = None
    q_heads: int | str | None = None
    kv_heads: int | str | None = None
    head_dim: int | str | None = None
    seq_len: int | str | None = None
    sparsity: float | str | None = None
    density: float | str | None = None
    block_size: int | str | None = None
    other_params: str | None = None
    overhead: str | None = None
    source: str
    source_kind: str
    recalled: bool = False
    recalled_fields: list[str] | str | None = None
    implied_check: str | None = None

    @property
    def number(self) -> float | None:
        """The figure, times in seconds; None where it is not one number."""
        if not isinstance(self.value, int | float):
            return None
        return self.value * UNITS.get(self.unit or "", 1.0)

    def plain(self) -> dict[str, Any]:
        """Its fields by name."""
        fields: dict[str, Any] = msgspec.to_builtins(self)
        return fields


def read_claims(path: Path = TABLE) -> list[Claim]:
    """All claims of a table.

    >>> claims = read_claims()
    >>> len(claims), claims[0].id
    (590, 'natten-dense-baseline-1')
    """
    found, seen = [], Counter[str]()
    for line in path.read_bytes().splitlines():
        row = msgspec.json.decode(line, type=Claim)
        slug = re.sub(r"[^a-z0-9.]+", "-", row.system.lower()).strip("-")
        seen[slug] += 1
        found.append(msgspec.structs.replace(row, id=f"{slug}-{seen[slug]}"))
    return found
