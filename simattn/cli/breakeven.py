"""simattn breakeven: from which length or density a pattern pays."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import host_options, json_option, problem_options, read_call
from .predict import compile_notice

if TYPE_CHECKING:
    from ..breakeven import Breakeven


@click.command()
@problem_options
@host_options
@click.option("--vary", default="tokens", show_default=True, metavar="NAME", help="tokens, or a parameter of the pattern.")
@click.option("--from", "low", type=float, metavar="VALUE", help="Lowest value; 1024 tokens, or an eighth of the parameter's.")
@click.option("--to", "high", type=float, metavar="VALUE", help="Highest value; 262144 tokens, or eight times the parameter's.")
@click.option("--target", type=float, default=1.0, show_default=True, metavar="X", help="Wanted speedup over dense.")
@click.option("--points", type=int, default=9, show_default=True, help="Values to begin with.")
@click.option("-o", "--output", type=click.Path(dir_okay=False), metavar="FILE", help="Write both times as .html or .png.")
@json_option
def breakeven(
    pattern: str | None,
    mask_file: str | None,
    hw: str,
    settings: tuple[str, ...],
    vary: str,
    low: float | None,
    high: float | None,
    target: float,
    points: int,
    output: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Find from which length (or density, window ...) a pattern beats dense, with all that runs beside it.

    \b
    simattn breakeven --hw a100 --pattern sliding_window --set window=4096
    simattn breakeven --hw h100 --pattern radial --target 2
    simattn breakeven --hw h100 --pattern sliding_window --seq-q 32768 --vary window --target 4
    simattn breakeven --hw h100 --pattern nsa -o breakeven.html
    """
    from ..breakeven import breakeven as run

    if output is not None:
        from ..plots import check

        check(Path(output))
    with compile_notice():
        call = read_call(pattern, mask_file, hw, settings, options)
        answer = run(call.pattern, call.spec, vary=vary, low=low, high=high, target=target, points=points, **call.options)
    if output is not None:
        from ..plots import save
        from ..plots.breakeven import breakeven_figure

        save(breakeven_figure(answer), Path(output))
        click.echo(f"simattn: wrote {output}", err=True)
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(answer.to_dict()).decode())
    else:
        _print(answer)


def _print(answer: Breakeven) -> None:
    from rich.console import Console
    from rich.table import Table

    console = Console(highlight=False)
    console.print(f"[bold]{answer.pattern}[/bold] on {answer.gpu}: kernel {answer.kernel}, dense {answer.dense_kernel}\n")
    table = Table(box=None, pad_edge=False)
    own = [] if answer.vary == "tokens" else [answer.vary]
    for title in (*own, "tokens", "ms", "of it beside the attention", "dense ms", "speedup"):
        table.add_column(title, justify="right")
    for p in answer.points:
        first = [f"{p.value:,.4g}"] if own else []
        times = (f"{p.latency_ms:,.3f}", f"{p.side_ms:,.3f}", f"{p.dense_ms:,.3f}", f"{p.speedup:.2f}")
        mark = "[bold]" if p.speedup >= answer.target else ""
        table.add_row(*first, f"{p.tokens:,}", *times[:-1], mark + times[-1])
    console.print(table)
    console.print(f"\n{answer.words()}")
    if answer.value is None and answer.reuse is None:
        console.print("not even with free kernels beside it would the last of them reach it")
    elif answer.value is None and answer.reuse is not None and answer.reuse > 1:
        console.print(f"the last of them would reach it if {answer.reuse} calls shared the kernels beside the attention")
