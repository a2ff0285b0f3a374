"""The command line: one module a command group. Heavy imports happen inside the commands, so that starting costs nothing."""

from __future__ import annotations

import gc
import os
import sys
from io import TextIOWrapper
from typing import NoReturn

import click

from ..facts import UserError
from .breakeven import breakeven
from .calibrate import calibrate
from .claims import claims
from .compare import compare
from .complaints import complaints
from .decode import decode
from .e2e import e2e
from .explain import explain
from .hw import hw
from .kernels import kernels
from .mask import mask
from .measure import measure
from .models import models
from .offload import offload
from .optimize import optimize
from .patterns import patterns
from .predict import predict
from .report import report
from .ring import ring
from .roofline import roofline
from .sweep import sweep
from .trace import trace
from .validate import validate


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(package_name="simattn")
def simattn() -> None:
    """Predict how long a sparse-attention kernel takes on a GPU that you may not have.

    \b
    simattn predict --hw b200 --pattern radial       time, speedup, bounds, and where the time goes
    simattn explain --hw b200 --pattern radial       where the speedup goes: limit or bug
    simattn breakeven --hw a100 --pattern radial     from which length it beats dense
    simattn optimize --hw b200 --pattern gna --sparsity 0.91   tiles and strides that nothing beats
    simattn e2e --hw h100 --model hunyuan-video --pattern radial   what is left of it in the model
    simattn decode --hw a100 --model llama-2-7b --pattern tidal --context 32768   decode steps, layer by layer
    simattn offload --hw a800 --model llama-3.1-8b --pattern sliding_window --set window=4096 --context 65536 --hit-rate 0.9
    simattn ring --hw h800 --model llama-3.1-8b --seq-q 65536 --gpus 8   several GPUs share a sequence
    simattn compare --hw h100,b200 --patterns radial,gna --model hunyuan-video   ranked
    simattn roofline --hw h100 -o roofline.html      roofs of a GPU, patterns below them
    simattn report --hw b200 --pattern radial -o radial.html   all of it as one page
    simattn sweep --hw h100,b200 --pattern gna --vary stride=1,4,16 -o gna.parquet   a table of many
    simattn patterns list                            what --pattern takes
    simattn hw list                                  what --hw takes
    simattn complaints                               public threads on slow sparse attention, answered
    simattn mask --pattern radial -o radial.png      the blocks as a picture
    simattn trace --hw b200 --pattern radial -o t.json.gz   what every warp role did, for Perfetto
    simattn calibrate --table my_runs.jsonl          constants of a kernel on your GPU
    simattn measure --suite core                     time kernels on the GPU at hand

    Every command takes --json. Answers go to stdout, everything else to stderr.
    """


ANSWERS = (predict, explain, compare, breakeven, optimize, sweep, e2e, decode, offload, ring, roofline, report, trace)
LISTS = (patterns, mask, hw, models, kernels, complaints)
TRUST = (validate, claims, calibrate, measure)

for command in (*ANSWERS, *LISTS, *TRUST):
    simattn.add_command(command)


def main() -> NoReturn:
    """Run the command line and end the process: a mistake of the user ends with one line on stderr and exit code 2."""
    # Importing makes some 100,000 objects, all of which stay: looking for garbage among them costs a tenth of a command.
    gc.set_threshold(200_000)
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            stream.reconfigure(errors="replace")  # a terminal without the characters of the bars
    code = _run()
    sys.stderr.flush()
    # Everything is written and closed. Taking the interpreter apart, LLVM included, would cost a quarter of a command.
    os._exit(code)


def _run() -> int:
    """Run the command that was asked for, and give its exit code."""
    try:
        code = simattn.main(standalone_mode=False)
        sys.stdout.flush()
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        return 2
    except (UserError, click.ClickException) as error:
        message = error.format_message() if isinstance(error, click.ClickException) else str(error)
        click.echo(f"simattn: {' '.join(message.split())}", err=True)
        return 2
    except click.Abort:
        click.echo("simattn: stopped", err=True)
        return 130
    except BrokenPipeError:
        # The reader of stdout went away (`| head`): that is no error.
        return 0
    except OSError as error:
        click.echo(f"simattn: {error.strerror}{f': {error.filename}' if error.filename else ''}", err=True)
        return 2
    return code if isinstance(code, int) else 0
