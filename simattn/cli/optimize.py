"""simattn optimize: which tiles, strides, windows, blocks and token orders to use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .options import json_option, parse_value, problem_options, read_call
from .output import progress_bar
from .predict import compile_notice


def _vary(ctx: click.Context, param: click.Parameter, texts: tuple[str, ...]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for text in texts:
        name, equals, values = text.partition("=")
        given = (
            {name.strip(): tuple(parse_value(v) for v in values.split(",") if v)} if equals else dict.fromkeys(text.split(","))
        )
        for each, value in given.items():
            if not each or each in found or (equals and not value):
                raise click.BadParameter(f"expected names, or NAME=VALUE,VALUE, each once; got {text!r}")
            found[each] = value
    return found


@click.command()
@problem_options
@click.option(
    "--vary",
    multiple=True,
    callback=_vary,
    metavar="NAME,...|NAME=VALUE,...",
    help="stride, window, tile, order (all there are), or any parameter of the pattern with values. Repeatable.",
)
@click.option(
    "--sparsity", type=float, metavar="SHARE", help="Wanted share of masked pairs (0.91): windows near it count as equal."
)
@click.option("--most", type=click.IntRange(1), default=2000, show_default=True, help="Configurations to simulate at most.")
@click.option("-o", "--output", type=click.Path(dir_okay=False), metavar="FILE", help="Write the front as .png or .html.")
@json_option
def optimize(
    pattern: str | None,
    mask_file: str | None,
    hw: str,
    settings: tuple[str, ...],
    vary: dict[str, Any],
    sparsity: float | None,
    most: int,
    output: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Search for the configurations that no other one beats.

    Closed forms rule out what cannot be among them, and the rest is simulated. Better is: less time; fewer queries that share one
    window, for windows of neighbours then overlap more; more keys that a query sees (at a wanted sparsity, all see as many).

    \b
    simattn optimize --hw b200 --pattern gna --grid 30x48x80 --sparsity 0.91 --vary stride,tile
    simattn optimize --hw b200 --pattern gna --grid 32768 --set window=2048 --vary stride
    simattn optimize --hw a100 --pattern gna --vary tile
    simattn optimize --hw b200 --pattern gna --grid 30x48x80 --sparsity 0.91 --vary window,stride,tile -o pareto.html
    simattn optimize --hw rtx_3090 --pattern gna --grid 128x128 --set window=13x13 --vary order
    simattn optimize --hw h100 --pattern moba --vary block=128,256,512
    """
    from ..optimize import optimize as run

    if output is not None:
        from ..plots import check

        check(Path(output))
    with compile_notice(), progress_bar("closed forms") as update:

        def progress(done: int, total: int) -> None:
            update(completed=done, total=max(done, total), description="simulating at most")

        call = read_call(pattern, mask_file, hw, settings, options)
        answer = run(call.pattern, call.spec, vary=vary, sparsity=sparsity, most=most, progress=progress, **call.options)
    if output is not None:
        from ..plots import save
        from ..plots.pareto import pareto_figure

        save(pareto_figure(answer), Path(output))
        click.echo(f"simattn: wrote {output}", err=True)
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(answer.to_dict()).decode())
    else:
        from ..optimize.table import print_optimum

        print_optimum(answer)


# Every configuration is simulated at one fidelity, after a look at its closed form.
optimize.params = [option for option in optimize.params if option.name != "fidelity"]
