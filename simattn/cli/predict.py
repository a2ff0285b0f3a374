"""simattn predict: how long, how much faster than dense, and why not more."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from .options import host_options, json_option, problem_options, read_call
from .output import progress_bar

if TYPE_CHECKING:
    from collections.abc import Iterator


@click.command()
@problem_options
@host_options
@click.option("--warm", is_flag=True, help="L2 holds what it can of Q, K and V, as when the same call is timed over and over.")
@click.option(
    "--without", multiple=True, metavar="STAGE", help="Leave out a stage of the waterfall: the machine without that limit."
)
@json_option
def predict(
    pattern: str | None, mask_file: str | None, hw: str, settings: tuple[str, ...], as_json: bool, **options: Any
) -> None:
    """Predict the run time of a pattern on a GPU.

    A pattern brings its published workload and setting; every option overrides a part of it.

    \b
    simattn predict --hw b200 --pattern radial
    simattn predict --hw h100 --pattern gna --grid 256x256 --set window=80x80 --set stride=16x16
    simattn predict --hw a100 --pattern sliding_window --seq-q 16384 --q-heads 32 --kv-heads 8 --set window=128
    simattn predict --hw my_gpu.toml --pattern radial --set hw.chip.sm_count=160
    """
    from ..simulator import predict as run

    with compile_notice(), mask_progress():
        call = read_call(pattern, mask_file, hw, settings, options)
        answer = run(call.pattern, call.spec, **call.options)
    if as_json:
        click.echo(answer.to_json())
    else:
        from ..report import print_prediction

        print_prediction(answer, call.spec)


@contextmanager
def mask_progress() -> Iterator[None]:
    """Show on stderr, where somebody watches, how much of a mask function has been evaluated."""
    from ..workloads.families.mask_function import watched

    with (
        progress_bar("evaluating the mask function, %", 100, visible=False) as update,
        watched(lambda share: update(completed=100 * share, visible=True)),
    ):
        yield


@contextmanager
def compile_notice() -> Iterator[None]:
    """Say so on stderr when the simulator has to be compiled, which happens once on a machine."""
    from numba.core import event

    class Notice(event.Listener):
        said = False

        def on_start(self, event: Any) -> None:
            if not self.said:
                click.echo("simattn: compiling the simulator for this machine (once, some seconds) ...", err=True)
                Notice.said = True

        def on_end(self, event: Any) -> None:
            pass

    with event.install_listener("numba:compile", Notice()):
        yield
