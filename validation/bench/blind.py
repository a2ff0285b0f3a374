"""The blind test: draw fresh cases, write down what the simulator says, and only then measure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from math import exp, log
from pathlib import Path
from random import Random
from typing import Any

import msgspec

from ...facts import UserError
from ...hwspecs import GpuSpec
from ..scores import Score, score
from .case import Case
from .machine import now
from .predicted import predicted_ms
from .row import row_id
from .suites import blind_ranges

TRIES = 1000
"""Draws for a case before giving up: most are small enough."""


def draw(seed: int, *, tiny: bool = False) -> list[Case]:
    """Random calls: shape, pattern, density, kernels; the same for the same seed.

    Examples
    --------
    >>> draw(1)[0].key == draw(1)[0].key != draw(2)[0].key
    True
    """
    ranges, rng = blind_ranges(tiny), Random(seed)
    found: dict[str, Case] = {}
    for _ in range(TRIES):
        if len(found) >= ranges["cases"]:
            break
        dense = rng.random() < ranges["dense_share"]
        drawn = _dense(ranges, rng) if dense else _sparse(ranges, rng, tiny)
        if drawn.tflop <= ranges["tflop_max"]:
            found[drawn.key] = drawn
    return list(found.values())


def _dense(ranges: dict[str, Any], rng: Random) -> Case:
    tokens, heads = _log_uniform(rng, *ranges["tokens"]), rng.choice(ranges["heads"])
    return Case(
        suite="blind",
        runner="attention",
        kernel=rng.choice(ranges["dense_kernels"]),
        pattern=rng.choice(ranges["dense"]),
        head_dim=rng.choice(ranges["head_dim"]),
        q_heads=heads,
        kv_heads=heads,
        seq_q=tokens,
        seq_kv=tokens,
    )


def _sparse(ranges: dict[str, Any], rng: Random, tiny: bool) -> Case:
    block, pattern = rng.choice(ranges["block"]), rng.choice(ranges["sparse"])
    tokens, heads = _log_uniform(rng, *ranges["tokens"]), rng.choice(ranges["heads"])
    params: dict[str, Any] = {"block": block}
    if pattern == "block_radial":
        frames = rng.choice([2, 4] if tiny else [8, 16, 21])
        params |= {"frames": frames, "decay": round(exp(rng.uniform(log(0.1), log(2))), 3)}
        tokens = max(tokens // (block * frames), 1) * block * frames
    else:
        low, high = ranges["density"]
        params |= {"density": round(exp(rng.uniform(log(low), log(high))), 3), "seed": rng.randrange(10**6)}
        tokens = -(-tokens // block) * block
    return Case(
        suite="blind",
        runner="attention",
        kernel=rng.choice(ranges["sparse_kernels"]),
        pattern=pattern,
        head_dim=rng.choice(ranges["head_dim"]),
        q_heads=heads,
        kv_heads=heads,
        seq_q=tokens,
        seq_kv=tokens,
        params=params,
    )


def _log_uniform(rng: Random, low: int, high: int) -> int:
    """A whole number of some tokens: any, not only powers of two."""
    return round(exp(rng.uniform(log(low), log(high))))


def predictions_path(out: Path) -> Path:
    """Where the predictions of a file of measurements stand: beside it."""
    return out.with_suffix(".predictions.jsonl")


def write_predictions(cases: Iterable[Case], spec: GpuSpec, table: str, out: Path) -> list[dict[str, Any]]:
    """Predict every case and write the file, unless it is there: predictions are made once, before the first measurement.

    Raises
    ------
    UserError
        There are measurements without predictions, or predictions of other cases.
    """
    path, drawn = predictions_path(out), list(cases)
    ids = [row_id(case, table) for case in drawn]
    if path.exists():
        rows = [msgspec.json.decode(line) for line in path.read_bytes().splitlines()]
        if [row["id"] for row in rows] != ids:
            raise UserError(f"{path} predicts other cases: give another --out or the --seed it was made with")
        return rows
    if out.exists():
        raise UserError(f"{out} was measured without predictions: a blind test needs a new --out")
    rows = [{"id": name, **_prediction(case, spec), "date": now()} for name, case in zip(ids, drawn, strict=True)]
    path.write_bytes(b"".join(msgspec.json.encode(row) + b"\n" for row in rows))
    return rows


def _prediction(case: Case, spec: GpuSpec) -> dict[str, Any]:
    found: dict[str, Any] = {"gpu": spec.name, "spec_hash": spec.spec_hash(), "predicted_ms": None}
    try:
        found["predicted_ms"] = predicted_ms(case, spec)
    except UserError as error:
        found["skipped"] = str(error)
    return found


def compared(predictions: Sequence[dict[str, Any]], rows: Sequence[dict[str, Any]]) -> tuple[list[dict[str, Any]], Score | None]:
    """Predictions beside what was measured, and the errors of all together (positive: predicted too slow).

    Examples
    --------
    >>> table, total = compared([{"id": "a", "predicted_ms": 1.2}], [{"id": "a", "latency_ms": 1.0}])
    >>> round(table[0]["error"], 3), round(total.mape, 3)
    (0.2, 0.2)
    """
    measured = {row["id"]: row.get("latency_ms") for row in rows}
    table = []
    for row in predictions:
        expected, found = row["predicted_ms"], measured.get(row["id"])
        error = expected / found - 1 if expected and found else None
        table.append({"id": row["id"], "measured_ms": found, "predicted_ms": expected, "error": error})
    errors = [row["error"] for row in table if row["error"] is not None]
    return table, score(errors) if errors else None
