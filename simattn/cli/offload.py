"""simattn offload: decoding with keys and values in host memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import json_option, problem_options, read_call
from .predict import compile_notice

if TYPE_CHECKING:
    from ..simulator.offload import Offload


@click.command()
@problem_options
@click.option("--context", type=click.IntRange(1), required=True, help="Tokens of every sequence.")
@click.option("--hit-rate", type=float, required=True, metavar="SHARE", help="Of the blocks of a step, those on the GPU already.")
@click.option("--kv-gib", type=float, metavar="GIB", help="Memory for keys and values; what the weights leave by default.")
@click.option("--prefetch", is_flag=True, help="A layer's blocks are known one layer ahead.")
@click.option("--link-share", type=float, metavar="SHARE", help="Of the host link's peak; that of a large copy by default.")
@click.option("-o", "--output", type=click.Path(dir_okay=False), metavar="FILE", help="Write all hit rates as .html or .png.")
@click.option("--host-us", type=float, default=0.0, metavar="US", help="Of the host before each layer; none in a CUDA graph.")
@json_option
def offload(
    pattern: str | None,
    mask_file: str | None,
    hw: str,
    settings: tuple[str, ...],
    context: int,
    hit_rate: float,
    kv_gib: float | None,
    prefetch: bool,
    link_share: float | None,
    output: str | None,
    host_us: float,
    as_json: bool,
    **options: Any,
) -> None:
    """Predict decoding with keys and values in host memory, beside the same with all of them on the GPU.

    --batch is that of the offloaded run; by default as many sequences as fit.

    \b
    simattn offload --hw a800 --model llama-3.1-8b --pattern sliding_window --set window=4096 --context 65536 --hit-rate 0.9
    simattn offload --hw h100 --model llama-3.1-8b --pattern quest --context 131072 --hit-rate 0.9 --prefetch -o offload.html
    """
    from ..facts import UserError
    from ..simulator.offload import offload as run
    from ..simulator.setting import Setting

    if options.get("model") is None:
        raise UserError("offload needs --model: see simattn models list")
    if output is not None:
        from ..plots import check

        check(Path(output))
    with compile_notice():
        call = read_call(pattern, mask_file, hw, settings, options)
        given = {name: call.options[name] for name in ("model", "params", "batch", "dtype") if call.options.get(name) is not None}
        name, setting = given.pop("model"), Setting(call.options.get("clock", "sustained"))

        def at(hit: float) -> Offload:
            return run(
                name,
                call.pattern,
                call.spec,
                context=context,
                hit_rate=hit,
                kv_memory_gib=kv_gib,
                prefetch=prefetch,
                link_share=link_share,
                host_us=host_us,
                setting=setting,
                **given,
            )

        answer = at(hit_rate)
        if output is not None:
            from ..plots import save
            from ..plots.offload import HIT_RATES, offload_figure

            words = "fetched a layer ahead" if prefetch else "fetched when selected"
            save(offload_figure({words: [at(hit) for hit in HIT_RATES]}), Path(output))
            click.echo(f"simattn: wrote {output}", err=True)
    if as_json:
        import msgspec

        click.echo(msgspec.json.encode(answer.to_dict()).decode())
    else:
        _print(answer)


def _print(answer: Offload) -> None:
    from rich.console import Console

    from ..report import print_table

    console = Console(highlight=False)
    console.print(f"[bold]{answer.model}[/bold] decoding with {answer.pattern} on {answer.gpu}")
    console.print(
        f"{answer.context:,} tokens a sequence, {answer.budget:,} attended; {answer.kv_memory_gib:.1f} GiB of keys and values\n"
    )
    rows = []
    for name, run in (("on the GPU", answer.resident), (f"offloaded, {100 * answer.hit_rate:g} % hits", answer.offloaded)):
        if run is None:
            rows.append([name, 0, "", "", ""])
        else:
            rows.append([name, run.batch, f"{run.step_ms:,.2f}", f"{run.host_link_ms:,.2f}", f"{run.tokens_per_s:,.1f}"])
    print_table(["", "sequences", "step ms", "host link ms", "tokens/s"], rows)
    if answer.speedup is not None:
        console.print(f"\noffloaded {answer.speedup:.2f} x as fast")
    even = "never" if answer.break_even_hit is None else f"from {100 * answer.break_even_hit:.1f} % hits"
    console.print(f"pays {even}; the host link sets the pace below {100 * answer.link_bound_below:.1f} %")
    if answer.link_bound_batch is not None:
        console.print(f"at {100 * answer.hit_rate:g} % hits it does from {answer.link_bound_batch} sequences on")


_UNUSED = (
    *("baseline", "fidelity", "seed", "q_tile", "kv_tile", "kernel", "phase", "causal", "shape"),
    *("grid", "frames", "tokens_per_frame", "seq_q", "seq_kv", "text"),
)
offload.params = [option for option in offload.params if option.name not in _UNUSED]
