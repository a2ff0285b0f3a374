"""simattn sweep: a table of many predictions."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click
from click.core import ParameterSource

from .options import comma_names, parse_value, problem_setting, problem_sizes, set_option, tile_options
from .output import Form, print_rows, progress_bar, row_formats
from .predict import compile_notice

if TYPE_CHECKING:
    from ..sweeps import Sweep, SweepSpec

MOST_ROWS = 40
"""Rows that are printed whole; of more the best are."""


@click.command()
@click.argument("spec_file", required=False, metavar="[SPEC.toml]", type=click.Path(dir_okay=False))
@click.option("--hw", metavar="GPU,...", callback=comma_names, help="Names, aliases or TOML files of GPUs.")
@click.option("--pattern", "patterns", metavar="NAME,...", callback=comma_names, help="Names or TOML files of patterns.")
@click.option("--mask", "mask_file", metavar="FILE", type=click.Path(dir_okay=False), help="Block mask in place of a pattern.")
@click.option("--kernel", "kernels", metavar="NAME,...", callback=comma_names, help="Kernels; the usual one of each by default.")
@click.option(
    "--vary",
    multiple=True,
    metavar="NAME=VALUES",
    help="Values with commas (stride=1,4,16 or grid=30x48x80,16x32x32), or a range: window=512..4096:512, density=0.05..0.5, "
    "seq_q=4096..262144:log. NAME is an option below with _ for -, a parameter of a pattern, or hw.TABLE.KEY.",
)
@click.option("--block", metavar="N,...", help="Short for --vary block=N,...: the blocks in which a pattern or mask is cut.")
@set_option
@problem_sizes
@tile_options
@problem_setting
@click.option("--random", type=int, metavar="N", help="Draw N points in place of the whole grid.")
@click.option("--optimize", metavar="COLUMN", help="Search for the best latency_ms, speedup, tflops or side_ms.")
@click.option("--trials", type=int, metavar="N", help="Points of the search.")
@click.option("-o", "--output", type=click.Path(dir_okay=False), metavar="FILE", help="Write .parquet, .csv, .json or .html.")
@click.option("--picture", type=click.Path(dir_okay=False), metavar="FILE", help="Draw the times as .html or .png.")
@click.option("--jobs", type=int, metavar="N", help="Processes; by default one for every few hundred points, at most one a core.")
@click.option("--scheduler", metavar="ADDRESS", help="Dask scheduler whose workers predict: tcp://HOST:PORT.")
@row_formats
def sweep(
    spec_file: str | None,
    hw: list[str] | None,
    patterns: list[str] | None,
    mask_file: str | None,
    kernels: list[str] | None,
    vary: tuple[str, ...],
    block: str | None,
    settings: tuple[str, ...],
    random: int | None,
    optimize: str | None,
    trials: int | None,
    output: str | None,
    picture: str | None,
    jobs: int | None,
    scheduler: str | None,
    form: Form,
    **options: Any,
) -> None:
    """Predict every point of a grid, of a random sample, or of a search.

    A name varies for the patterns that have it. A point that fails is a row that says why. With -o a sweep that was stopped at
    any moment goes on from there when it is started again; the same on a Dask cluster with --scheduler.

    \b
    simattn sweep --hw h100,b200 --pattern gna --grid 128x128 --set window=32x32 --vary stride=1,4,8,16 --vary q_heads=8,24
    simattn sweep --hw h100 --mask my_mask.npy --seq-q 4096 --block 32,64,128,256 --picture blocks.html
    simattn sweep --hw h100 --pattern sliding_window --vary window=256..8192:log --vary seq_q=8192..65536 --random 1000 -o w.csv
    simattn sweep --hw b200 --pattern radial --vary decay=0.5..2 --optimize speedup --trials 100 -o radial.parquet
    simattn sweep my_sweep.toml --scheduler tcp://10.0.0.1:8786 -o out.parquet
    """
    from ..facts import UserError
    from ..sweeps import sweep as run

    if picture is not None:
        from ..plots import check

        check(Path(picture), "--picture")
    given = _given(options)
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name or not text:
            raise click.BadParameter(f"expected name=value, got {setting!r}", param_hint="--set")
        given[name] = parse_value(text)
    axes = dict(_axis("--vary", text) for text in vary)
    if block is not None:
        axes["block"] = _axis("--block", f"block={block}")[1]
    if mask_file is not None:
        if patterns:
            raise click.UsageError("give either --pattern or --mask")
        patterns, given["file"] = ["mask_file"], mask_file
    lists = {name: names for name, names in (("patterns", patterns), ("hw", hw), ("kernels", kernels)) if names}
    numbers = {name: n for name, n in (("random", random), ("optimize", optimize), ("trials", trials)) if n is not None}
    if "seed" in given:
        numbers["seed"] = given.pop("seed")
    spec = _spec(spec_file, {**lists, **numbers}, axes, given)
    with compile_notice(), progress_bar("points") as update:

        def progress(done: int, total: int, failed: int) -> None:
            update(description=f"points{f' ({failed:,} failed)' if failed else ''}", completed=done, total=total)

        answer = run(spec, output=output, jobs=jobs, scheduler=scheduler, progress=progress)
    if output is not None:
        failed = f", {answer.failed:,} of them without an answer" if answer.failed else ""
        click.echo(f"simattn: {len(answer.rows):,} rows in {output}{failed}", err=True)
    if answer.rows and answer.failed == len(answer.rows):
        raise UserError(f"no point has an answer: {answer.rows[0]['error']}")
    if picture is not None:
        from ..plots import save
        from ..plots.sweep import sweep_figure

        save(sweep_figure(answer), Path(picture))
        click.echo(f"simattn: wrote {picture}", err=True)
    _print(answer, form)


def _given(options: dict[str, Any]) -> dict[str, Any]:
    """Options that are on the command line, not those that have a default."""
    context = click.get_current_context()
    return {n: v for n, v in options.items() if context.get_parameter_source(n) is ParameterSource.COMMANDLINE}


def _axis(option: str, text: str) -> tuple[str, Any]:
    """Name and values, or range, of what varies."""
    from ..sweeps import Range

    name, equals, values = text.partition("=")
    if not equals or not name or not values:
        raise click.BadParameter(f"expected NAME=VALUE,VALUE,..., got {text!r}", param_hint=option)
    name = name.replace("-", "_") if not name.startswith("hw.") else name
    return name, Range.parse(values) or [parse_value(value) for value in values.split(",") if value]


def _spec(file: str | None, fields: dict[str, Any], axes: dict[str, Any], given: dict[str, Any]) -> SweepSpec:
    """The spec of a file with what the command line says in its place."""
    from ..sweeps import SweepSpec
    from ..sweeps.spec import document

    base = document(file) if file is not None else {}
    for name in ("vary", "options"):
        if not isinstance(base.get(name, {}), dict):
            raise click.UsageError(f"{file}: {name} must be a table")
    fields = {
        **base,
        **fields,
        "vary": {n: v for n, v in {**base.get("vary", {}), **axes}.items() if n not in given},
        "options": {n: v for n, v in {**base.get("options", {}), **given}.items() if n not in axes},
    }
    both = sorted(axes.keys() & given.keys())
    if both:
        raise click.UsageError(f"{both[0]} is set, and varies")
    for name, option in (("patterns", "--pattern or --mask"), ("hw", "--hw")):
        if not fields.get(name):
            raise click.UsageError(f"give {option}{f', or {name} in {file}' if file else ', or a file with both'}")
    return SweepSpec.read(fields, file or "sweep")


def _print(answer: Sweep, form: Form) -> None:
    if form != "table":
        print_rows([column.name for column in answer.columns], answer.rows, form=form)
        return
    rows = [row for row in answer.rows if row["error"] is None]
    if len(rows) > MOST_ROWS or answer.spec.optimize:
        rows = answer.best(MOST_ROWS // 2)
        click.echo(f"the best {len(rows)} of {len(answer.rows):,} by {answer.spec.optimize or 'latency_ms'}\n")
    if rows:
        wanted = [*_varying(answer), *SHOWN]
        print_rows(
            [TITLES.get(name, name) for name in wanted], [{name: _shown(name, row[name]) for name in wanted} for row in rows]
        )
    for error, n in Counter(row["error"] for row in answer.rows if row["error"] is not None).most_common(5):
        click.echo(f"{n:,} without an answer: {error}")


TILES = ("tiles_visited", "tiles_full", "tiles_partial")
SHOWN = (
    "latency_ms",
    "dense_ms",
    "speedup",
    "density_tiles",
    "tiles_visited",
    "tiles_full",
    "tiles_partial",
    "ctas_per_sm",
    "limiter",
)
TITLES = {
    "latency_ms": "ms",
    "dense_ms": "dense ms",
    "density_tiles": "tiles left out",
    "tiles_visited": "visited",
    "tiles_full": "full",
    "tiles_partial": "partial",
    "ctas_per_sm": "CTAs\nan SM",
    "gpu": "GPU",
}


def _varying(answer: Sweep) -> list[str]:
    """Columns of names that differ from row to row."""
    names = ["pattern", "gpu", "kernel", "q_tile", "kv_tile"]
    return [*(name for name in names if len({row[name] for row in answer.rows if not row["error"]}) > 1), *_own(answer, names)]


def _own(answer: Sweep, names: list[str]) -> list[str]:
    known = {column.name for column in answer.columns}
    return [name for name in answer.spec.vary if name in known and name not in names]


def _shown(name: str, value: Any) -> Any:
    if value is None:
        return ""
    if name == "density_tiles":
        return f"{100 * (1 - value):.1f} %"
    return f"{value:.2f} x" if name == "speedup" else f"{value:,.4g}" if isinstance(value, float) else value
