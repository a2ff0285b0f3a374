"""simattn compare: which GPU, which pattern."""

from __future__ import annotations

from typing import Any

import click

from .options import comma_names, problem_setting, problem_sizes
from .output import Form, print_rows, progress_bar, row_formats
from .predict import compile_notice


@click.command()
@click.option("--hw", required=True, metavar="GPU,...", callback=comma_names, help="Names, aliases or TOML files of GPUs.")
@click.option("--patterns", required=True, metavar="NAME,...", callback=comma_names, help="Names or TOML files of patterns.")
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
    with compile_notice(), progress_bar(total=len(hw) * len(patterns)) as update:
        answer = run(hw, patterns, progress=lambda what, done, _: update(description=what, completed=done), **given)
    if form == "table":
        from ..report import print_comparison

        print_comparison(answer)
    else:
        rows = answer.to_dicts()
        print_rows(list(rows[0]), rows, form=form, title="simattn compare")
