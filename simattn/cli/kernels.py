"""simattn kernels: what --kernel takes."""

from __future__ import annotations

import json

import click

from .compile import compile_
from .options import hw_option, json_option
from .output import Form, print_rows, row_formats
from .predict import compile_notice


@click.group()
def kernels() -> None:
    """Kernel profiles: list, show with sources; compiled code: read without a GPU."""


kernels.add_command(compile_)


@kernels.command("list")
@row_formats
def list_(form: Form) -> None:
    """List the kernels that --kernel takes."""
    from ..kernels import kernels as shelf

    entries = [shelf.load(name) for name in shelf.names()]
    rows = [
        {"name": k.name, "title": k.title, "archs": list(k.archs), "masks": list(k.masks), "program": k.program} for k in entries
    ]
    print_rows(["name", "kernel", "architectures", "masks", "program"], rows, form=form)


@kernels.command()
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show one kernel: tiles, costs, sources."""
    import msgspec

    from ..kernels import kernels as shelf

    profile = shelf.load(name)
    plain = msgspec.to_builtins(profile)
    if as_json:
        click.echo(json.dumps(plain))
        return
    from ..report import print_table

    tiles, meta = plain.pop("tiles"), plain.pop("meta")
    click.echo(f"{profile.title} ({profile.name})")
    print_table(list(tiles[0]), [[_text(v) for v in tile.values()] for tile in tiles])
    flat = {f"{k}.{kk}": vv for k, v in plain.items() if isinstance(v, dict) for kk, vv in v.items()}
    flat = {**{k: v for k, v in plain.items() if not isinstance(v, dict)}, **flat}
    print_table(["value", ""], [[key, _text(value)] for key, value in flat.items()])
    print_table(
        ["", "origin", "source"],
        [[k, p["kind"], f"{p['source']}{': ' + p['note'] if p['note'] else ''}"] for k, p in meta.items()],
    )


@kernels.command()
@click.argument("name")
@hw_option
@click.option("--head-dim", type=click.IntRange(8, 1024), default=128, show_default=True, help="Head width.")
@click.option("--causal", is_flag=True, help="The tile that causal calls take.")
@row_formats
def loop(name: str, hw: str, head_dim: int, causal: bool, form: Form) -> None:
    """Show a kernel's loop program on a GPU: what a tile costs each unit, and how fast tiles can follow each other.

    ResMII is what the busiest unit needs for a tile, RecMII the longest cycle of dependences; no interval is below either.
    """
    from ..hwspecs import gpus
    from ..kernels import KINDS
    from ..kernels import kernels as shelf
    from ..simulator import choose_kernel
    from ..simulator.intervals import intervals
    from ..simulator.pipeline import sm_pipeline
    from ..workloads import AttentionProblem

    spec = gpus.load(hw)
    problem = AttentionProblem(q_heads=1, seq_q=8192, head_dim=head_dim, causal=causal)
    choice = choose_kernel(spec, problem, shelf.load(name).masks[0], kernel=name)
    with compile_notice():
        sm = sm_pipeline(choice.spec, choice.profile, choice.tile, problem, choice.tiling.q_rows, choice.tiling.kv_rows)
        steady = sm.steady()
    rows = []
    for number, kind in enumerate(KINDS[:3]):
        bounds = intervals(sm.program, kind)
        rows.append(
            {
                "tile": kind,
                **{unit: round(cycles) for unit, cycles in sm.units(kind).items()},
                "res_mii": round(bounds.resource),
                "rec_mii": round(bounds.recurrence),
                "interval": round(float(steady.alone[number])),
                "shared_interval": round(float(steady.together[number])),
            }
        )
    if form == "table":
        tile = f"{choice.tiling.q_rows} queries by {choice.tiling.kv_rows} keys"
        click.echo(
            f"{choice.profile.title} on {spec.title}: program {sm.program.name}, {tile}, head_dim {head_dim}; cycles of an SM"
        )
        click.echo(f"roles: {', '.join(sm.program.roles)}; {sm.ctas} CTA{'s' if sm.ctas > 1 else ''} on an SM")
    header = ["tile", *sm.units("plain"), "ResMII", "RecMII", "interval\none CTA", "interval\nall CTAs"]
    print_rows(header, rows, form=form)


def _text(value: object) -> str:
    return ", ".join(map(str, value)) if isinstance(value, (list, tuple)) else str(value)
