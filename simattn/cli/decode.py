"""simattn decode: a loop of decode steps over a growing context."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from .options import json_option, problem_options, read_call
from .predict import compile_notice

if TYPE_CHECKING:
    from ..simulator.decode import Loop


@click.command()
@problem_options
@click.option("--context", type=int, required=True, help="Tokens of every sequence before the first step.")
@click.option("--tokens", type=int, default=256, show_default=True, help="Tokens that every sequence gets.")
@click.option("--host-us", type=float, default=0.0, metavar="US", help="Of the host before each layer; none in a CUDA graph.")
@json_option
def decode(
    pattern: str | None,
    mask_file: str | None,
    hw: str,
    settings: tuple[str, ...],
    context: int,
    tokens: int,
    host_us: float,
    as_json: bool,
    **options: Any,
) -> None:
    """Predict decoding with full, selecting and sparse layers, beside the same with dense attention in all of them.

    \b
    simattn decode --hw a100 --model llama-2-7b --pattern tidal --context 32768 --tokens 256
    simattn decode --hw h100 --model deepseek-r1-distill-qwen-1.5b --pattern delta --context 4 --tokens 18428 --batch 64
    """
    from ..facts import UserError
    from ..simulator.decode import decode as run
    from ..simulator.setting import Setting

    if options.get("model") is None:
        raise UserError("decode needs --model: see simattn models list")
    with compile_notice():
        call = read_call(pattern, mask_file, hw, settings, options)
        given = {name: call.options[name] for name in ("model", "params", "batch", "dtype") if call.options.get(name) is not None}
        answer = run(
            given.pop("model"),
            call.pattern,
            call.spec,
            context=context,
            tokens=tokens,
            host_us=host_us,
            setting=Setting(call.options.get("clock", "sustained")),
            **given,
        )
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(answer.to_dict()).decode())
    else:
        _print(answer)


def _print(answer: Loop) -> None:
    from rich.console import Console

    from ..report import print_table

    console = Console(highlight=False)
    kinds = ", ".join(f"{count} {role}" for role, count in answer.roles.items())
    console.print(f"[bold]{answer.model}[/bold] decoding with {answer.pattern} on {answer.gpu}: layers {kinds}")
    fits = "" if answer.fits is None else f"; {answer.fits:,} fit"
    attended = f"{answer.budget:,} attended by a sparse layer at the end"
    console.print(f"{answer.batch} sequences of {answer.context:,} tokens, {attended}{fits}\n")
    if answer.fits is not None and answer.fits < answer.batch:
        console.print("[bold]their keys and values do not fit into the memory of the GPU[/bold]\n")
    rows = []
    for step in answer.steps:
        times = (step.ms, step.dense_ms, step.attention_ms, step.dense_attention_ms)
        rows.append([step.context, *(f"{ms:,.3f}" for ms in times)])
    print_table(["context", "step ms", "dense ms", "attention ms", "dense attention ms"], rows)
    console.print(f"\n{answer.tokens:,} tokens each in {answer.seconds:,.2f} s, dense in {answer.dense_seconds:,.2f} s")
    console.print(f"{answer.tokens_per_s:,.1f} tokens/s, dense {answer.dense_tokens_per_s:,.1f}: {answer.speedup:.2f} x")


_UNUSED = (
    *("baseline", "fidelity", "seed", "q_tile", "kv_tile", "kernel", "phase", "causal", "shape"),
    *("grid", "frames", "tokens_per_frame", "seq_q", "seq_kv", "text"),
)
decode.params = [option for option in decode.params if option.name not in _UNUSED]
