"""simattn calibrate: a few physical constants of a kernel on a GPU, from measured calls."""

from __future__ import annotations

from pathlib import Path

import click

from .options import json_option
from .predict import compile_notice


@click.command()
@click.option("--table", "file", type=click.Path(), metavar="FILE", help="Your measurements, one JSON object a line.")
@click.option(
    "--published",
    metavar="GPU/FRAMEWORK/VERSION",
    help="A table of aiconfigurator-core (needs simattn[validation]); without a name that exists, the error lists them.",
)
@click.option("--kernel", "label", metavar="LABEL", help="Kernel, as the table names it, where there are several.")
@click.option(
    "-o",
    "--output",
    type=click.Path(file_okay=False),
    metavar="FOLDER",
    help="Where the file goes; the user's data folder by default.",
)
@click.option("--fit", "most_fitted", type=click.IntRange(20), default=220, show_default=True, help="Rows to fit at most.")
@click.option("--page", type=click.Path(dir_okay=False), metavar="FILE", help="Write the page of all calibrations instead.")
@json_option
def calibrate(
    file: str | None,
    published: str | None,
    label: str | None,
    output: str | None,
    most_fitted: int,
    page: str | None,
    as_json: bool,
) -> None:
    """Fit the constants of a kernel to measured calls, and score them on calls that were not fitted.

    Fitted are a fixed half of the dense causal calls of head dim 128, and nothing else. From then on predict uses the constants.

    \b
    simattn calibrate --table my_runs.jsonl
    simattn calibrate --published h100_sxm/vllm/0.24.0 --kernel vllm/vllm_flash_attn_fa3
    """
    import msgspec
    from rich.console import Console
    from rich.progress import Progress

    from ..facts import UserError
    from ..kernels.calibration import file_name, user_folder
    from ..validation import calibrate as run
    from ..validation import calibration_page, read_measurements
    from ..validation.sources import read_table

    if page is not None:
        if not Path(page).absolute().parent.is_dir():
            raise click.UsageError(f"no such folder: {Path(page).parent}")
        Path(page).write_text(calibration_page(), encoding="utf-8")
        click.echo(f"simattn: wrote {page}", err=True)
        return
    if (file is None) == (published is None):
        raise click.UsageError("give either --table or --published")
    if published is not None:
        parts = published.split("/")
        if len(parts) != 3:
            raise click.UsageError(f"--published is GPU/FRAMEWORK/VERSION, got {published!r}")
        runs = read_table(parts[0], parts[1], parts[2])
    else:
        runs = read_measurements(Path(str(file)))
    labels = sorted({r.kernel for r in runs})
    if label is None and len(labels) > 1:
        raise UserError(f"the table has several kernels; name one with --kernel: {', '.join(labels)}")
    chosen = [r for r in runs if label in (None, r.kernel)]
    if not chosen:
        raise UserError(f"the table has no rows of kernel {label!r}; it has {', '.join(labels)}")
    folder = Path(output) if output else user_folder()
    with Progress(console=Console(stderr=True), transient=True) as progress, compile_notice():
        task = progress.add_task("calibrating", total=None)
        found = run(chosen, most_fitted=most_fitted, on_step=lambda what: progress.update(task, description=what, advance=1))
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file_name(found.kernel, found.gpu)
    path.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
    click.echo(f"simattn: wrote {path}", err=True)
    if as_json:
        click.echo(msgspec.json.encode(found).decode())
        return
    from ..report import print_table

    owners = (("kernel", found.kernel_parameters), ("GPU", found.gpu_parameters), ("environment", found.environment))
    print_table(
        ["of", "constant", "value", ""],
        [[o, n, v, "not identified" if n in found.unidentified else ""] for o, values in owners for n, v in values.items()],
    )
    rows = [("fitted", found.fit, None), *((name, r, found.roofline[name]) for name, r in found.score.items())]
    print_table(
        ["rows", "n", "MAPE %", "median %", "p90 %", "max %", "bias %", "roofline\nMAPE %"],
        [
            [
                name,
                r.n,
                *(round(100 * x, 1) for x in (r.mape, r.median, r.p90, r.max, r.bias)),
                round(100 * n.mape, 1) if n else "-",
            ]
            for name, r, n in rows
        ],
    )
