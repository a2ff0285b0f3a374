"""simattn ring: attention over a sequence that several GPUs share."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import hw_option, json_option, parse_settings, problem_sizes, set_option
from .predict import compile_notice

if TYPE_CHECKING:
    from ..simulator.ring import Ring
    from ..workloads import AttentionProblem


@click.command()
@hw_option
@set_option
@problem_sizes
@click.option("--gpus", "count", type=int, default=8, show_default=True, help="GPUs in the ring.")
@click.option(
    "--order", metavar="contiguous|zigzag|striped", default="zigzag", show_default=True, help="Which tokens a GPU holds."
)
@click.option("--kernel", metavar="NAME", help="Attention kernel (simattn kernels list); the usual one by default.")
@click.option("-o", "--output", type=click.Path(dir_okay=False), metavar="FILE", help="Write the steps as a trace for Perfetto.")
@json_option
def ring(
    hw: str,
    settings: tuple[str, ...],
    count: int,
    order: str,
    kernel: str | None,
    output: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Predict ring attention: keys and values go round the GPUs, each of which holds its part of the queries.

    \b
    simattn ring --hw h800 --model llama-3.1-8b --seq-q 65536 --gpus 8 --order zigzag --kernel fa2
    simattn ring --hw rtx_4090 --seq-q 32768 --q-heads 32 --head-dim 128 --causal --gpus 4 --order contiguous
    """
    from ..facts import UserError
    from ..hwspecs import gpus
    from ..simulator.question import question
    from ..simulator.ring import ring as run

    params, hardware = parse_settings(settings)
    if params:
        raise UserError(f"ring attention is dense or causal and has no parameters, got {', '.join(params)}")
    causal = options.pop("causal", None)
    with compile_notice():
        given = {name: value for name, value in options.items() if value is not None}
        asked = question("causal" if causal is not False else "dense", **given)
        spec = gpus.load(hw, hardware)
        answer = run(spec, asked.problem, gpus=count, order=order, kernel=kernel)  # type: ignore[arg-type]
    if output:
        Path(output).write_bytes(answer.timeline.to_json())
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(answer.to_dict()).decode())
    else:
        _print(answer, asked.problem)


def _print(answer: Ring, problem: AttentionProblem) -> None:
    from rich.console import Console

    from ..report import print_table

    console = Console(highlight=False)
    kind = "causal" if problem.causal else "dense"
    console.print(
        f"[bold]{answer.order}[/bold] ring of {answer.gpus} {answer.gpu}, {kind}, {problem.seq_q:,} tokens: {answer.kernel}\n"
    )
    console.print(f"time        {answer.seconds * 1e3:,.3f} ms  one GPU on its own part {answer.alone_seconds * 1e3:,.3f} ms")
    console.print(f"efficiency  {100 * answer.efficiency:.1f} %  of the rate of one GPU\n")
    print_table(
        ["gpu", "attention ms", "merges ms", "waiting ms", "sending ms"],
        [[r.rank, *(f"{1e3 * s:,.3f}" for s in (r.attention, r.merges, r.waiting, r.sending))] for r in answer.ranks],
    )
    console.print("\nassumed: merges run op by op as PyTorch does; sends take no SM from attention")


ring.params = [option for option in ring.params if option.name not in ("phase",)]
