"""simattn compare: which GPU, which pattern."""

from __future__ import annotations

from typing import Any

import click

from .options import problem_setting, problem_sizes
from .output import Form, print_rows, row_formats
from .predict import compile_notice


def _names(ctx: click.Context, param: click.Parameter, value: str) -> list[str]:
    names = [name.strip() for name in value.split(",") if name.strip()]
    if not names:
        raise click.BadParameter("expected names with commas between them")
    return names


@click.command()
@click.option("--hw", required=True, metavar="GPU,...", callback=_names, help="Names, aliases or TOML files of GPUs.")
@click.option("--patterns", required=True, metavar="NAME,...", callback=_names, help="Names or TOML files of patterns.")
@problem_sizes
@problem_setting
@row_formats
def compare(hw: list[str], patterns: list[str], form: Form, **options: Any) -> None:
    """Rank patterns on GPUs by their predicted latency.

    Each pattern runs in its published setting; without options that say otherwise, on its published workload. A row that has no
    answer says why.

    \b
    simattn compare --hw h100,b200 --patterns dense,radial,gna --model hunyuan-video
    simattn compare --hw a100,h100 --patterns causal,sliding_window,streaming_llm --model llama-3.1-8b --csv
    """
    from ..comparison import compare as run

    given = {name: value for name, value in options.items() if value is not None}
    with compile_notice():
        answer = _with_progress(run, hw, patterns, given)
    if form == "table":
        from ..report import print_comparison

        print_comparison(answer)
    else:
        rows = answer.to_dicts()
        print_rows(list(rows[0]), rows, form=form, title="simattn compare")


def _with_progress(run: Any, hw: list[str], patterns: list[str], options: dict[str, Any]) -> Any:
    """Run with a progress bar on stderr, where somebody watches."""
    from rich.console import Console
    from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn

    console = Console(stderr=True)
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn())
    with Progress(*columns, console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=len(hw) * len(patterns))

        def progress(what: str, done: int, total: int) -> None:
            bar.update(task, description=what, completed=done)

        return run(hw, patterns, progress=progress, **options)
