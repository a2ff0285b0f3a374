"""simattn e2e: what is left of an attention's speedup in the whole model."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import json_option, problem_options, read_call
from .predict import compile_notice

if TYPE_CHECKING:
    from ..simulator.e2e import EndToEnd


@click.command()
@problem_options
@click.option("--steps", type=click.IntRange(1), help="Denoising steps; those of the model by default, 1 for a language model.")
@click.option("--dense-steps", type=click.IntRange(0), help="Steps that keep dense attention; by default as the system is used.")
@click.option("--dense-layers", type=click.IntRange(0), help="Layers that keep dense attention; likewise.")
@click.option("--attn-share", type=float, help="Measured share of self-attention in the dense run, in place of a simulated rest.")
@click.option("--gpus", type=click.IntRange(1), default=1, show_default=True, help="Tensor parallelism over so many GPUs.")
@click.option("--eager", is_flag=True, help="Elementwise work op by op, without a compiler; for models whose code was counted.")
@click.option("-o", "--output", type=click.Path(dir_okay=False), metavar="FILE", help="Write one step as a trace for Perfetto.")
@json_option
def e2e(
    pattern: str | None,
    mask_file: str | None,
    hw: str,
    settings: tuple[str, ...],
    steps: int | None,
    dense_steps: int | None,
    dense_layers: int | None,
    attn_share: float | None,
    gpus: int,
    eager: bool,
    output: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Predict a whole model with a sparse attention: every layer and step, with what is not attention.

    \b
    simattn e2e --hw h100 --model hunyuan-video --pattern radial --dense-steps 12
    simattn e2e --hw b200 --model flux-dev-4k --pattern gna --text 0 --set window=80x80 --set stride=16x16 --attn-share 0.518
    simattn e2e --hw h100 --model llama-3.1-8b --pattern sliding_window --set window=4096
    simattn e2e --hw h100 --model llama-3.1-70b --pattern minference --gpus 8
    """
    from ..facts import UserError
    from ..simulator.e2e import e2e as run
    from ..simulator.e2e import step_graph
    from ..simulator.setting import Setting
    from ..simulator.system import run as play

    if options.get("model") is None:
        raise UserError("e2e needs --model: see simattn models list")
    with compile_notice():
        call = read_call(pattern, mask_file, hw, settings, options)
        given = dict(call.options)
        setting = Setting(given.pop("clock", "sustained"), given.pop("fidelity", "fast"))
        for name in ("seed", "q_tile", "kv_tile"):
            given.pop(name, None)
        answer = run(
            given.pop("model"),
            call.pattern,
            call.spec,
            steps=steps,
            dense_steps=dense_steps,
            dense_layers=dense_layers,
            attention_share=attn_share,
            gpus=gpus,
            eager=eager,
            setting=setting,
            **given,
        )
    if output:
        Path(output).write_bytes(play(step_graph(answer)).to_json())
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(answer.to_dict()).decode())
    else:
        _print(answer, eager)


def _print(answer: EndToEnd, eager: bool) -> None:
    from rich.console import Console

    from ..report import print_table

    count, console = answer.counts, Console(highlight=False)
    where = f"{answer.gpus} x {answer.gpu}" if answer.gpus > 1 else answer.gpu
    console.print(
        f"[bold]{answer.model}[/bold] with {answer.pattern} on {where}: kernel {answer.kernel}, dense {answer.dense_kernel}"
    )
    passes = f", {count.passes} passes a step" if count.passes > 1 else ""
    console.print(
        f"{count.steps} steps ({count.dense_steps} dense) of {count.layers} layers ({count.dense_layers} dense){passes}\n"
    )
    console.print(f"latency  {answer.latency_ms / 1e3:,.2f} s  dense {answer.dense_latency_ms / 1e3:,.2f} s")
    console.print(f"speedup  {answer.speedup:.2f} x  of the model; attention alone {answer.attention_speedup:.2f} x")
    console.print(f"bound    {answer.bound:.2f} x  if sparse attention took no time")
    given = ", as given" if answer.share_given else ""
    console.print(f"share    {100 * answer.attention_share:.1f} %  of the dense run is self-attention{given}")
    console.print(f"work     {answer.pflops:,.1f} PFLOP; dense {answer.dense_pflops:,.1f} PFLOP\n")
    rows = []
    for part in answer.parts:
        share = 100 * part.latency_ms / answer.latency_ms
        work = f"{part.dense_pflops:,.1f}" if part.dense_pflops else ""
        rows.append([part.name, work, f"{part.dense_ms / 1e3:,.2f}", f"{part.latency_ms / 1e3:,.2f}", f"{share:.1f}"])
    print_table(["part", "dense PFLOP", "dense s", "here s", "share %"], rows)
    kernels = "elementwise ops one by one" if eager else "fused elementwise kernels"
    console.print(f"\nassumed: {kernels}, one stream, settled clocks; text encoder and decoder are not part of it")
    if answer.gpus > 1:
        console.print(
            "all GPUs have as many heads and the same work on each; all-reduces by NCCL's rings, not hidden under other work"
        )


e2e.params = [option for option in e2e.params if option.name not in ("seed", "q_tile", "kv_tile")]
