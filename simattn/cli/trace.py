"""simattn trace: what the warps and units of some SMs do and when, as a file for Perfetto."""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import click

from .options import json_option, problem_options, read_call
from .predict import compile_notice, mask_progress

FORMATS = (".json", ".json.gz")


@click.command()
@problem_options
@click.option("--sms", type=click.IntRange(1), default=2, show_default=True, help="SMs to trace: the first ones.")
@click.option("--events", type=click.IntRange(1, 10**7), default=100_000, show_default=True, help="Events at most: the earliest.")
@click.option("-o", "--output", type=click.Path(dir_okay=False), required=True, metavar="FILE", help="Write .json or .json.gz.")
@json_option
def trace(
    pattern: str | None,
    mask_file: str | None,
    hw: str,
    settings: tuple[str, ...],
    sms: int,
    events: int,
    output: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Trace the attention kernel of a call, op by op, at the burst clock; open the file at https://ui.perfetto.dev.

    Shown are the roles of each CTA slot of some SMs, their loads in flight, and the units at work. It is the simulation of
    --fidelity cycle, of some heads where the call is very large.

    \b
    simattn trace --hw b200 --pattern radial -o radial.json.gz
    simattn trace --hw a100 --pattern causal --seq-q 8192 --sms 1 -o causal.json
    """
    from ..facts import UserError
    from ..simulator import question
    from ..simulator.trace import trace as run

    if not output.endswith(FORMATS):
        raise UserError(f"--output must end in one of {', '.join(FORMATS)}, got {output}")
    if not Path(output).absolute().parent.is_dir():
        raise UserError(f"no such folder: {Path(output).parent}")
    with compile_notice(), mask_progress():
        call = read_call(pattern, mask_file, hw, settings, options)
        runs_on = {name: call.options.pop(name, None) for name in ("kernel", "q_tile", "kv_tile")}
        asked = question(call.pattern, **call.options)
        found = run(asked, call.spec, **runs_on, sms=sms, events=events)
    about, content = found.about, found.to_json()
    if output.endswith(".gz"):
        content = gzip.compress(content, compresslevel=6, mtime=0)
    Path(output).write_bytes(content)
    if about["heads_simulated"] < about["heads"]:
        click.echo(
            f"simattn: {about['heads_simulated']} of {about['heads']} heads are simulated, with {about['visits_simulated']:,} of "
            f"{about['visits']:,} visits",
            err=True,
        )
    if as_json:
        click.echo(json.dumps({"output": output, "bytes": len(content), **about}))
        return
    span = "all" if not about["capped"] else f"the first {about['traced_us']:,.1f}"
    click.echo(
        f"{output}: {about['events']:,} events, {span} of {about['kernel_us']:,.1f} us of {about['kernel']} on {about['gpu']}, "
        f"{about['sms_traced']} of {about['sms']} SMs"
    )


# There is no dense run to compare with, and the simulation is always the closest one, at the burst clock.
trace.params = [option for option in trace.params if option.name not in ("baseline", "fidelity", "clock", "seed")]
