"""simattn calibrate: a few physical constants of a kernel on a GPU, from measured calls."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click

from .options import json_option
from .output import progress_bar
from .predict import compile_notice


@click.command()
@click.option("--table", "file", type=click.Path(), metavar="FILE", help="Your measurements, one JSON object a line.")
@click.option(
    "--published",
    metavar="GPU/FRAMEWORK/VERSION",
    help="A table of aiconfigurator-core (needs simattn[validation]); without a name that exists, the error lists them.",
)
@click.option(
    "--all",
    "everything",
    is_flag=True,
    help="Make every calibration that the protocol names, and the bands of kernels without one, anew: some half an hour.",
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
    everything: bool,
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
    simattn calibrate --all --output kernels/calibrations
    """
    import msgspec

    from ..facts import UserError
    from ..kernels.calibration import user_folder
    from ..validation import calibrate as run
    from ..validation import calibrate_all, calibration_page, read_measurements, write_calibration
    from ..validation.sources import Table, read_table

    if page is not None:
        if not Path(page).absolute().parent.is_dir():
            raise click.UsageError(f"no such folder: {Path(page).parent}")
        Path(page).write_text(calibration_page(), encoding="utf-8")
        click.echo(f"simattn: wrote {page}", err=True)
        return
    if (file is not None) + (published is not None) + everything != 1:
        raise click.UsageError("give either --table, --published or --all")
    if everything:
        if output is None:
            raise click.UsageError("--all makes the shipped calibrations anew: say where with --output kernels/calibrations")
        with _steps() as step:
            made = calibrate_all(Path(output), step)
        click.echo(f"simattn: wrote {len(made)} calibrations to {output}, and the bands beside it", err=True)
        if as_json:
            click.echo(msgspec.json.encode(made).decode())
        return
    runs = read_table(*Table.of(published)) if published is not None else read_measurements(Path(str(file)))
    labels = sorted({r.kernel for r in runs})
    if label is None and len(labels) > 1:
        raise UserError(f"the table has several kernels; name one with --kernel: {', '.join(labels)}")
    chosen = [r for r in runs if label in (None, r.kernel)]
    if not chosen:
        raise UserError(f"the table has no rows of kernel {label!r}; it has {', '.join(labels)}")
    folder = Path(output) if output else user_folder()
    with _steps() as step:
        found = run(chosen, most_fitted=most_fitted, on_step=step)
    path = write_calibration(found, folder)
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


@contextmanager
def _steps() -> Iterator[Callable[[str], None]]:
    """What is being done, as a line on stderr that changes."""
    with progress_bar("calibrating") as update, compile_notice():
        yield lambda what: update(description=what, advance=1)
