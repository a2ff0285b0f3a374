"""simattn report: everything about one prediction as a page."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from .options import json_option, problem_options, read_call
from .predict import compile_notice, mask_progress


@click.command()
@problem_options
@click.option("--measured-ms", type=float, metavar="MS", help="A run of your own, to be judged: limit, circumstance or bug.")
@click.option("-o", "--output", type=click.Path(dir_okay=False), required=True, metavar="FILE.html", help="Where the page goes.")
@json_option
def report(
    pattern: str | None,
    mask_file: str | None,
    hw: str,
    settings: tuple[str, ...],
    measured_ms: float | None,
    output: str,
    as_json: bool,
    **options: Any,
) -> None:
    """Write one page about a prediction: time, waterfalls, blocks, bounds, roofline, and the source of every number.

    The page needs no network, so it can be sent as it is.

    \b
    simattn report --hw b200 --pattern radial -o radial.html
    simattn report --hw h100 --pattern gna --set window=18x24x24 --measured-ms 60 -o gna.html
    simattn report --hw a100 --mask my_mask.npz --q-heads 32 --kv-heads 8 --head-dim 128 -o mine.html
    """
    import msgspec

    from ..explain import explain
    from ..facts import UserError
    from ..plots import check
    from ..simulator import choose_kernel, question

    path = Path(output)
    check(path)
    if path.suffix != ".html":
        raise UserError(f"a report is an .html file, got {output}")
    with compile_notice(), mask_progress():
        call = read_call(pattern, mask_file, hw, settings, options)
        answer = explain(call.pattern, call.spec, measured_ms=measured_ms, **call.options)
        asked = question(call.pattern, **{name: value for name, value in call.options.items() if name not in _RUN})
        p, mask_class, axes = answer.prediction, asked.pattern.family.mask_class(), len(asked.layout.grid)
        tiling = choose_kernel(call.spec, asked.problem, mask_class, axes, call.options.get("kernel", p.kernel)).tiling
        # One head is shown, whatever the kernel packs into a tile.
        schedule = asked.pattern.schedule(asked.layout, msgspec.structs.replace(tiling, q=p.q_tile, kv=p.kv_tile, pack=1))
    from ..report_page import report_page

    content = report_page(answer, call.spec, asked.pattern.system, schedule)
    path.write_text(content, encoding="utf-8")
    if as_json:
        click.echo(json.dumps({"output": output, "bytes": len(content.encode()), **answer.to_dict()}))
    else:
        click.echo(f"{output}: {p.pattern} on {p.gpu}, {p.latency_ms:.4g} ms, {p.speedup:.2f} x the dense call's speed")


_RUN = ("kernel", "baseline", "q_tile", "kv_tile", "fidelity", "clock")
"""Options that say how a call is run, not what is asked."""
