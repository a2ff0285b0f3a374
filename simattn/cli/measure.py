"""simattn measure: time kernels on the GPU at hand, in rows that validate and calibrate read."""

from __future__ import annotations

import json
from collections import Counter
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import json_option
from .output import progress_bar

if TYPE_CHECKING:
    from ..hwspecs import GpuSpec
    from ..validation.bench import Planned

SUITES = ("ceilings", "core", "sparse", "micro", "decode", "aux", "blind")


@click.command()
@click.option("--suite", metavar="|".join(SUITES), required=True, help="What is measured.")
@click.option(
    "--out", type=click.Path(dir_okay=False), metavar="FILE", help="Rows go to its end; simattn-GPU-SUITE.jsonl by default."
)
@click.option("--dry-run", is_flag=True, help="List the work and the time that it will take; needs neither GPU nor torch.")
@click.option("--tiny", is_flag=True, help="Small shapes; where there is no GPU, under the Triton interpreter.")
@click.option("--only", metavar="TEXT", help="Only cases whose names hold this text.")
@click.option("--limit", type=click.IntRange(1), metavar="N", help="Only the first N cases.")
@click.option("--seconds", type=click.FloatRange(0, min_open=True), metavar="S", help="Stop in time; run again for the rest.")
@click.option("--seed", type=int, default=0, show_default=True, help="Of the cases that the blind suite draws.")
@click.option("--hw", default="h200", show_default=True, metavar="GPU", help="GPU of a dry run.")
@json_option
def measure(
    suite: str,
    out: str | None,
    dry_run: bool,
    tiny: bool,
    only: str | None,
    limit: int | None,
    seconds: float | None,
    seed: int,
    hw: str,
    as_json: bool,
) -> None:
    """Measure a suite of kernels on the GPU at hand.

    Every result is held against float64 before it is timed. A row is written as soon as it is known, and cases that the file has
    are skipped: a run that was stopped goes on where it was.

    \b
    simattn measure --suite core --dry-run           what would be measured, and how long it takes
    simattn measure --suite core --tiny              see that everything runs, on any machine
    simattn measure --suite core --seconds 540       measure; once more for the rest
    simattn measure --suite blind --seed 7           draw cases, predict them, then measure
    """
    from ..facts import unknown_name

    if suite not in SUITES:
        raise unknown_name("suite", suite, SUITES)
    from ..hwspecs import gpus
    from ..validation.bench import plan
    from .predict import compile_notice

    if dry_run:
        spec = gpus.load(hw)
        with compile_notice():
            _show_plan(plan(_cases(suite, spec.chip.sm_count, tiny, seed, only, limit), spec), spec, suite, as_json)
        return
    from ..validation.bench.machine import find_machine

    machine = find_machine(tiny=tiny)
    chosen = _cases(suite, machine.sm_count, tiny, seed, only, limit)
    path = Path(out or f"simattn-{machine.gpu}-{suite}{'-tiny' if tiny else ''}.jsonl")
    with compile_notice():
        planned = plan(chosen, machine.spec)
    _run(planned, machine, path, suite, seconds, as_json)


def _cases(suite: str, sm_count: int, tiny: bool, seed: int, only: str | None, limit: int | None) -> list[Any]:
    """The cases that were asked for."""
    from ..facts import UserError
    from ..validation.bench import cases
    from ..validation.bench.blind import draw

    found = draw(seed, tiny=tiny) if suite == "blind" else cases(suite, sm_count=sm_count, tiny=tiny)
    chosen = [case for case in found if only is None or only in case.key][:limit]
    if not chosen:
        raise UserError(f"no case of suite {suite} holds {only!r}, such as {found[0].key}")
    return chosen


def _show_plan(planned: list[Planned], spec: GpuSpec, suite: str, as_json: bool) -> None:
    """The work of a run."""
    total = sum(item.seconds for item in planned)
    if as_json:
        rows = [{"case": p.case.key, "seconds": round(p.seconds, 3), "predicted_ms": p.predicted_ms} for p in planned]
        click.echo(json.dumps({"suite": suite, "gpu": spec.name, "seconds": round(total, 1), "cases": rows}))
        return
    from ..report import print_table

    number: Counter[tuple[str, str]] = Counter()
    time: Counter[tuple[str, str]] = Counter()
    for item in planned:
        key = (item.case.kernel, item.case.pattern or item.case.phase)
        number[key] += 1
        time[key] += item.seconds  # type: ignore[assignment]
    print_table(["kernel", "of", "cases", "seconds"], [[*key, number[key], round(time[key], 1)] for key in number])
    click.echo(f"{len(planned)} cases of suite {suite} take {total / 60:.1f} min on {spec.name}")


def _run(planned: list[Planned], machine: Any, path: Path, suite: str, seconds: float | None, as_json: bool) -> None:
    """Measure, and say what came of it."""
    from ..facts import UserError
    from ..validation.bench import Store
    from ..validation.bench.blind import compared, predictions_path, write_predictions
    from ..validation.bench.run import run

    store = Store(path)
    predictions = None
    if suite == "blind":
        predictions = write_predictions([item.case for item in planned], machine.spec, machine.table, path)
        click.echo(f"simattn: predictions are in {predictions_path(path)}", err=True)
    with progress_bar(total=len(planned)) as update:
        started = count()

        def on_case(name: str) -> None:
            update(completed=next(started), description=name)

        done = run(planned, machine, store, seconds=seconds, on_case=on_case)
    for why, number in done.unavailable.most_common():
        click.echo(f"simattn: {number} cases cannot run here: {why}", err=True)
    wrong = [row for row in done.rows if row["latency_ms"] is None]
    for row in wrong:
        click.echo(f"simattn: {row['id']}: {row['failed']}", err=True)
    behind = sum(bool(row.get("host_bound")) for row in done.rows)
    if behind:
        click.echo(f"simattn: {behind} cases waited for the host: their times (host_bound) hold launches", err=True)
    if done.broken:
        raise UserError(f"the GPU faulted after {len(done.rows)} cases; the case is marked in {path}: run again. {done.broken}")
    if done.left:
        click.echo(f"simattn: {done.left} cases are left: run again", err=True)
    summary: dict[str, Any] = {
        "suite": suite,
        "gpu": machine.gpu,
        "file": str(path),
        "measured": len(done.rows) - len(wrong),
        "failed": len(wrong),
        "skipped": done.skipped,
        "unavailable": done.unavailable.total(),
        "left": done.left,
    }
    comparison = compared(predictions, store.rows) if predictions is not None else None
    if comparison:
        summary["errors"] = comparison[1]._asdict() if comparison[1] else None
        summary["rows"] = comparison[0]
    if as_json:
        click.echo(json.dumps(summary))
        return
    if comparison:
        _show_comparison(*comparison)
    counts = ", ".join(f"{summary[name]} {name}" for name in ("measured", "failed", "skipped", "unavailable", "left"))
    click.echo(f"{path}: {counts}")


def _show_comparison(rows: list[dict[str, Any]], total: Any) -> None:
    """Predicted against measured, case by case."""
    from ..report import print_table

    print_table(
        ["case", "measured ms", "predicted ms", "error %"],
        [
            [row["id"], row["measured_ms"], row["predicted_ms"], round(100 * row["error"], 1)]
            for row in rows
            if row["error"] is not None
        ],
    )
    if total is not None:
        click.echo(f"mean error {100 * total.mape:.1f} %, median {100 * total.median:.1f} %, worst {100 * total.max:.1f} %")
