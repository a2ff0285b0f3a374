"""simattn explain: where the speedup goes, and whether a measured time is a limit or a bug."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import host_options, json_option, problem_options, read_call
from .predict import compile_notice, mask_progress


@click.command()
@problem_options
@host_options
@click.option("--measured-ms", type=float, metavar="MS", help="A run of your own, to be judged: limit, circumstance or bug.")
@click.option(
    "--what-if",
    "what_if",
    multiple=True,
    metavar="NAME=VALUE[,...]",
    help="The same call with something changed; names and values are above. Repeatable: each gives a line.",
)
@click.option("-o", "--output", type=click.Path(dir_okay=False), metavar="FILE", help="Write both waterfalls as .html or .png.")
@json_option
def explain(
    pattern: str | None,
    mask_file: str | None,
    hw: str,
    settings: tuple[str, ...],
    measured_ms: float | None,
    what_if: tuple[str, ...],
    output: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Explain why a sparse call is only so much faster than the dense one.

    The waterfalls of both calls stand side by side; each stage has the factor that it takes from the speedup, and why.

    \b
    simattn explain --hw b200 --pattern radial
    simattn explain --hw h100 --pattern radial --measured-ms 250
    simattn explain --hw h100 --pattern gna -o waterfalls.html
    simattn explain --hw h100 --pattern gna --what-if mask=none --what-if q-tile=8x4x8,kv-tile=4x4x8 --what-if exp=2x

    \b
    What --what-if takes:
      mask=none|partial|all              tiles that run an element mask (none: as if it cost nothing)
      q-tile=N[xN[xN]], kv-tile=...      the kernel's tile
      q-stages=N                         q tiles of 128 rows that a CTA works at side by side (FlashAttention-4 has two)
      buffers=N                          copies of K and of V in shared memory
      program=NAME                       loop program (simattn kernels loop KERNEL --hw GPU): tcgen05_single ...
      order=ascending|longest_first|by_visits   launch order of CTAs: by query; causal, from the last one; most visits first
      persistent=yes|no                  a CTA goes on to the next tile by itself, or every tile is a CTA
      exp=2x, bandwidth=2x, l2=2x        exponentials a clock; bandwidth of DRAM and of L2
      sms=N or 2x, clock=burst           SMs; clock (burst, boost or sustained)
    """
    from ..explain import explain as run

    if output is not None:
        from ..plots import check

        check(Path(output))
    with compile_notice(), mask_progress():
        call = read_call(pattern, mask_file, hw, settings, options)
        answer = run(call.pattern, call.spec, measured_ms=measured_ms, what_if=what_if, **call.options)
    if output is not None:
        from ..plots import save
        from ..plots.waterfall import both_waterfalls_figure

        save(both_waterfalls_figure(answer), Path(output))
        click.echo(f"simattn: wrote {output}", err=True)
    if as_json:
        click.echo(answer.to_json())
    else:
        from ..report import print_explanation

        print_explanation(answer, call.spec)
