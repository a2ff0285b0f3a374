"""What may be fitted and what must be predicted, decided before any constant is."""

from __future__ import annotations

from hashlib import sha256
from typing import Literal

from .measurement import Measurement

Role = Literal["fit", "score"]

MASK_FREE_TABLE, MASK_FREE_STRIDE = "natten-docs-2d-flux", [16, 16]
"""NATTEN has no dense rows: of its runs, those of FLUX at the stride at which no tile needs a mask are fitted."""


def role(row: Measurement) -> Role:
    """Whether constants may be fitted to a row, or are only scored on it.

    Constants are fitted on a fixed random half of the dense causal rows of head dim 128, and scored on everything else. The other
    half says how well they hold at shapes in between; windows and other head dims say whether they are the cost of a tile, a CTA
    and a launch, or only a curve through dense rows. What is sold, the time of a sparse call, is thus never fitted.

    The half is a hash of the row's id, which holds the table and the shape but neither time nor position: no rerun, reordering or
    new row moves a row from one side to the other, and nobody can choose the side. Suspect rows are never fitted. Which tables
    are offered at all is up to the caller: of those that must stay blind, such as published runs, none.

    Examples
    --------
    >>> shape = {"gpu": "h100_sxm", "kernel": "fa3", "phase": "prefill", "dtype": "bf16", "head_dim": 128}
    >>> [role(Measurement(id=f"row {i}", table="t", pattern="causal", **shape)) for i in range(4)]
    ['score', 'fit', 'score', 'score']
    >>> {role(Measurement(id=f"row {i}", table="t", pattern="sliding_window", **shape)) for i in range(4)}
    {'score'}
    """
    if row.table == MASK_FREE_TABLE:
        return "fit" if row.pattern == "gna" and row.pattern_params.get("stride") == MASK_FREE_STRIDE else "score"
    dense = row.pattern == "causal" and row.head_dim == 128 and not row.suspect
    return "fit" if dense and sha256(row.id.encode()).digest()[0] % 2 == 0 else "score"


def is_fitted(run: Measurement) -> bool:
    """Whether a published run was fitted: of the tables of published runs, NATTEN's alone have such rows."""
    return run.table == MASK_FREE_TABLE and role(run) == "fit"
