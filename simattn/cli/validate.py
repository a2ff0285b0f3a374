"""simattn validate: predictions against measured runs."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

from .options import json_option, parse_value
from .output import progress_bar
from .predict import compile_notice

if TYPE_CHECKING:
    from ..validation import Board, Difference, GroupScore, Row

T = TypeVar("T")


@click.command()
@click.option(
    "--table",
    type=click.Path(),
    metavar="FILE",
    help="Measurements, one JSON object a line; or a profile: a trace of torch.profiler (.json), ncu --csv (.csv). "
    "By default the published runs.",
)
@click.option(
    "--set", "settings", multiple=True, metavar="NAME=VALUE", help="A field of every row of the table, such as gpu=h100."
)
@click.option(
    "--class",
    "classes",
    multiple=True,
    type=click.Choice(["A", "B", "C", "D"]),
    help="Classes of the scoreboard in place of a table: A unseen GPU, B same table, C published, D scored only "
    "(A, B, D need simattn[validation]).",
)
@click.option(
    "--against", type=click.Path(dir_okay=False), metavar="OLD.json", help="An earlier --json: what changed, row by row."
)
@click.option("--html", type=click.Path(dir_okay=False), metavar="FILE", help="Write plots (needs simattn[viz]).")
@click.option(
    "--page", type=click.Path(dir_okay=False), metavar="FILE", help="Score all classes and write the page of the documentation."
)
@click.option("--log", type=click.Path(dir_okay=False), metavar="FILE", help="Append the scores of the classes to a log.")
@json_option
def validate(
    table: str | None,
    settings: tuple[str, ...],
    classes: tuple[str, ...],
    against: str | None,
    html: str | None,
    page: str | None,
    log: str | None,
    as_json: bool,
) -> None:
    """Hold predictions against measured runs, by GPU, kernel and pattern.

    Every run is simulated or says why not. The FLOP bound, the tile bound and a fitted roofline stand beside ours.

    \b
    simattn validate
    simattn validate --table my_runs.jsonl --json > new.json
    simattn validate --table my_runs.jsonl --against old.json
    simattn validate --table trace.json --set gpu=h100 --set batch=1 --set q_heads=32 --set kv_heads=8 --set seq_q=8192 \\
        --set seq_kv=8192 --set head_dim=128 --set pattern=causal
    simattn validate --class B --html scoreboard.html
    """
    from ..validation import compare, difference, group_scores, log_scoring, published_runs, read_runs, scoreboard_page

    if table and (page or classes):
        raise click.UsageError("--class and --page are of the scoreboard's own tables: leave --table out")
    if settings and not table:
        raise click.UsageError("--set is of a --table")
    if log and not (page or classes):
        raise click.UsageError("--log is of the scoreboard: give --class or --page")
    for path in (page, html, log):
        if path and not Path(path).absolute().parent.is_dir():
            raise click.UsageError(f"no such folder: {Path(path).parent}")
    if page or classes:
        board = _board("ABCD" if page else classes)
        rows, scores = board.rows, board.scores
    else:
        runs = read_runs(Path(table), _fields(settings)) if table else published_runs()
        rows = _progress("simulating", len(runs), lambda on_row: compare(runs, on_row))
        board, scores = None, [("", g) for g in group_scores(rows)]
    if board is not None and page:
        Path(page).write_text(scoreboard_page(board), encoding="utf-8")
        click.echo(f"simattn: wrote {page}", err=True)
    if board is not None and log:
        log_scoring(board, Path(log))
    if html:
        from ..plots.validation import validation_page

        Path(html).write_text(validation_page(rows), encoding="utf-8")
        click.echo(f"simattn: wrote {html}", err=True)
    changed = difference(rows, Path(against)) if against else None
    if as_json:
        groups = [{**({"class": part} if part else {}), **g.plain()} for part, g in scores]
        answer = {"rows": [row.plain() for row in rows], "groups": groups}
        changes = {"changes": [c.plain() for c in changed.changes], "same": changed.same, "gone": changed.gone} if changed else {}
        click.echo(json.dumps(answer | changes))
        return
    _print(rows, scores, changed, each=bool(table))


def _fields(settings: tuple[str, ...]) -> dict[str, Any]:
    """Fields of a measurement from `--set` options; what is no field is a parameter of the pattern."""
    from ..validation import Measurement

    fields: dict[str, Any] = {}
    params: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name or not text:
            raise click.BadParameter(f"expected name=value, got {setting!r}", param_hint="--set")
        (fields if name in Measurement.__struct_fields__ else params)[name] = parse_value(text)
    return {**fields, **({"pattern_params": params} if params else {})}


def _board(classes: Sequence[str]) -> Board:
    from ..validation import scoreboard

    return _progress("simulating", None, lambda on_row: scoreboard(classes, on_row))


def _progress(what: str, total: int | None, work: Callable[[Callable[[], None]], T]) -> T:
    """Run `work`, which calls its argument after each row, beside a bar on stderr."""
    with progress_bar(what, total) as update, compile_notice():
        return work(lambda: update(advance=1))


def _print(rows: Sequence[Row], scores: Sequence[tuple[str, GroupScore]], changed: Difference | None, *, each: bool) -> None:
    from ..report import print_table

    header = ["", "GPU", "kernel", "pattern", "size", "runs", "MAPE %", "median %", "p90 %", "max %", "bias %", "tau", "band %"]
    naive = ["FLOP bound\nMAPE %", "tile bound\nMAPE %", "roofline\nMAPE %"]
    print_table(
        [*header, *naive],
        [
            [
                part,
                *g.group,
                g.n,
                *(round(100 * x, 1) for x in g.simulated),
                "" if g.tau is None else f"{g.tau:.2f}",
                "" if g.inside is None else f"{100 * g.inside:.0f}",
                round(100 * g.flop_bound.mape, 1),
                round(100 * g.tile_bound.mape, 1),
                "" if g.roofline is None else f"{100 * g.roofline.mape:.1f}",
            ]
            for part, g in scores
        ],
        spare=["max %", *naive, "p90 %", "tau", "band %", "bias %", "median %"],
    )
    if each:
        print_table(
            ["run", "GPU", "kernel", "measured ms", "predicted ms", "error %"],
            [
                [r.id, r.gpu, r.kernel, r.measured_ms, r.predicted_ms, round(100 * r.error, 1)]
                for r in rows
                if r.error is not None
            ],
            spare=["kernel", "GPU"],
        )
    if changed is not None:
        _print_changes(changed)
    skipped = Counter(row.skipped for row in rows if row.skipped)
    for why, count in skipped.most_common():
        click.echo(f"not simulated: {count} of {len(rows)} runs: {why}")


MOST_CHANGES = 20
"""Changed rows that are printed; --json has all."""


def _print_changes(changed: Difference) -> None:
    from ..report import print_table

    closer, away = changed.counts()
    click.echo(
        f"\n{len(changed.changes)} predictions changed ({closer} closer to the measured time, {away} away from it), "
        f"{changed.same} did not, {len(changed.gone)} are gone"
    )
    if changed.changes:
        print_table(
            ["run", "measured ms", "old ms", "new ms"],
            [
                [c.id, *("-" if x is None else x for x in (c.measured_ms, c.old_ms, c.new_ms))]
                for c in changed.changes[:MOST_CHANGES]
            ],
        )
