"""simattn compare: which GPU, which pattern."""

from __future__ import annotations

import csv
import json
import sys
from typing import Any

import click

from .options import comma_names, problem_setting, problem_sizes
from .output import with_progress
from .predict import compile_notice


@click.command()
@click.option("--hw", required=True, metavar="GPU,...", callback=comma_names, help="Names, aliases or TOML files of GPUs.")
@click.option("--patterns", required=True, metavar="NAME,...", callback=comma_names, help="Names or TOML files of patterns.")
@problem_sizes
@problem_setting
@click.option("--json", "as_json", is_flag=True, help="Print one JSON array.")
@click.option("--csv", "as_csv", is_flag=True, help="Print comma-separated values.")
def compare(hw: list[str], patterns: list[str], as_json: bool, as_csv: bool, **options: Any) -> None:
    """Rank patterns on GPUs by their predicted latency.

    Each pattern runs in its published setting; without options that say otherwise, on its published workload. A row that has no
    answer says why.

    \b
    simattn compare --hw h100,b200 --patterns dense,radial,gna --model hunyuan-video
    simattn compare --hw a100,h100 --patterns causal,sliding_window,streaming_llm --model llama-3.1-8b --csv
    """
    from ..comparison import compare as run

    if as_json and as_csv:
        raise click.UsageError("give either --json or --csv")
    given = {name: value for name, value in options.items() if value is not None}
    with compile_notice():
        answer = with_progress(len(hw) * len(patterns), lambda progress: run(hw, patterns, progress=progress, **given))
    rows = answer.to_dicts()
    if as_json:
        click.echo(json.dumps(rows))
    elif as_csv:
        writer = csv.DictWriter(sys.stdout, list(rows[0]), lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)
    else:
        from ..report import print_comparison

        print_comparison(answer)
