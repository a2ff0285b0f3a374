"""simattn roofline: the roofs of a GPU, and where patterns lie below them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import comma_names, hw_option, json_option, problem_setting, problem_sizes
from .output import progress_bar
from .predict import compile_notice

if TYPE_CHECKING:
    from ..roofline import Roofline


@click.command()
@hw_option
@click.option("--patterns", metavar="NAME,...", callback=comma_names, help="Names or TOML files.")
@problem_sizes
@problem_setting
@click.option("-o", "--output", type=click.Path(dir_okay=False), metavar="FILE", help="Write .html or .png.")
@json_option
def roofline(hw: str, patterns: list[str] | None, output: str | None, as_json: bool, **options: Any) -> None:
    """Show the roofs of a GPU and where patterns lie below them.

    Roofs are those of the tensor cores, the exponentials, L2, DRAM and the host link. A pattern lies at its live FLOP/s over its
    live FLOPs a byte, once by the bytes that pass through L2 and once by those from DRAM; the limiter is the waterfall's.

    \b
    simattn roofline --hw h100
    simattn roofline --hw b200 --patterns dense,radial,gna,vsa --model hunyuan-video -o roofline.html
    simattn roofline --hw h100 --patterns dense,sliding_window --phase decode --batch 16 --seq-kv 65536
    """
    from ..roofline import DEFAULT_PATTERNS
    from ..roofline import roofline as run

    if output is not None:
        from ..plots import check

        check(Path(output))
    names = DEFAULT_PATTERNS if patterns is None else patterns
    given = {name: value for name, value in options.items() if value is not None}
    with compile_notice(), progress_bar(total=len(names)) as update:
        found = run(hw, names, progress=lambda what, done, _: update(description=what, completed=done), **given)
    if output is not None:
        from ..plots import save
        from ..plots.roofline import roofline_figure

        save(roofline_figure(found), Path(output))
        click.echo(f"simattn: wrote {output}", err=True)
    if as_json:
        click.echo(json.dumps(found.to_dict()))
    elif output is None:
        _print(found)
    for name, why in found.skipped.items() if not as_json else ():
        click.echo(f"simattn: {name}: {why}", err=True)


def _print(found: Roofline) -> None:
    from ..report import print_table

    click.echo(f"{found.title}: {found.dtype}, {found.clock_mhz:,.0f} MHz, the highest clock\n")
    tensor = found.roofs[0].tflops or 0.0
    print_table(
        ["roof", "TFLOP/s", "GB/s", "FLOPs a byte at the peak"],
        [
            [
                roof.words,
                "" if roof.tflops is None else f"{roof.tflops:,.0f}",
                "" if roof.gbps is None else f"{roof.gbps:,.0f}",
                "" if roof.gbps is None else f"{1e3 * tensor / roof.gbps:,.0f}",
            ]
            for roof in found.roofs
        ],
    )
    click.echo("")
    print_table(
        [
            "pattern",
            "kernel",
            "ms",
            "live\nTFLOP/s",
            "FLOPs a byte\nof L2",
            "FLOPs a byte\nof DRAM",
            "lowest roof",
            "of it %",
            "limiter",
        ],
        [
            [
                p.pattern,
                p.kernel,
                p.latency_ms,
                round(p.tflops, 1),
                round(p.l2_intensity),
                round(p.dram_intensity),
                f"{p.roof}, {p.roof_tflops:,.0f} TFLOP/s",
                round(100 * p.tflops / p.roof_tflops, 1),
                p.limiter,
            ]
            for p in found.points
        ],
    )
