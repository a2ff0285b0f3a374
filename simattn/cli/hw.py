"""simattn hw: the GPUs that ship with the package, their numbers and where those come from."""

from __future__ import annotations

import json
from pathlib import Path

import click

from .options import json_option
from .output import Form, print_rows, row_formats


@click.group()
def hw() -> None:
    """GPUs: list, show with sources, check for contradictions, detect the one at hand."""


@hw.command("list")
@row_formats
def list_(form: Form) -> None:
    """List the GPUs that --hw takes."""
    from ..hwspecs import gpus

    aliases: dict[str, list[str]] = {}
    for alias, stem in gpus.aliases().items():
        aliases.setdefault(stem, []).append(alias)
    rows = []
    for name in gpus.names():
        spec = gpus.load(name)
        rows.append(
            {
                "name": name,
                "aliases": sorted(aliases.get(name, [])),
                "title": spec.title,
                "arch": spec.arch,
                "sm_count": spec.chip.sm_count,
                "bf16_tflops": round(spec.tensor_tflops("bf16"), 1),
                "dram_gbps": spec.mem.dram.gbps,
                "l2_mib": spec.mem.l2.mib,
                "clock_max_mhz": spec.chip.clock_max_mhz,
            }
        )
    header = ["name", "aliases", "GPU", "arch", "SMs", "dense bf16\nTFLOP/s", "DRAM\nGB/s", "L2\nMiB", "max clock\nMHz"]
    print_rows(header, rows, form=form)


@hw.command()
@click.argument("name", metavar="GPU")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show every number of a GPU with its unit and source."""
    from ..hwspecs import gpus, sources

    spec = gpus.load(name)
    rows = [
        {
            "path": path,
            "value": value,
            "unit": unit,
            "kind": spec.meta[path].kind if path in spec.meta else "unsourced",
            "source": spec.meta[path].source if path in spec.meta else "",
            "note": spec.meta[path].note if path in spec.meta else "",
        }
        for path, value, unit in spec.leaves()
    ]
    keys = {key.strip() for row in rows for key in str(row["source"]).split(";")}
    legend = {key: reference for key, reference in sources().items() if key in keys}
    if as_json:
        click.echo(
            json.dumps(
                {
                    "name": spec.name,
                    "title": spec.title,
                    "arch": spec.arch,
                    "spec_hash": spec.spec_hash(),
                    "values": rows,
                    "sources": legend,
                }
            )
        )
        return
    from ..report import print_table

    click.echo(f"{spec.title} ({spec.name}, {spec.arch}), spec {spec.spec_hash()}")
    print_table(
        ["value", "", "unit", "origin", "source"],
        [[r["path"], r["value"], r["unit"], r["kind"], f"{r['source']}{': ' + r['note'] if r['note'] else ''}"] for r in rows],
    )
    print_table(["source", ""], [[key, reference] for key, reference in legend.items()])


@hw.command()
@click.argument("names", nargs=-1, metavar="[GPU]...")
@row_formats
@click.pass_context
def check(ctx: click.Context, names: tuple[str, ...], form: Form) -> None:
    """Hold the numbers of GPUs (all shipped ones, or files) against each other; exit 1 if any contradict.

    A check is vacuous where a factor was computed from the very peak that it is held against.
    """
    from ..hwspecs import check as run
    from ..hwspecs import gpus

    rows = [
        {"gpu": name, "status": finding.status, "text": finding.text}
        for name in names or gpus.names()
        for finding in run(gpus.load(name))
    ]
    print_rows(["GPU", "status", "check"], rows, form=form)
    if any(row["status"] == "off" for row in rows):
        ctx.exit(1)


@hw.command()
@click.option("--out", type=click.Path(dir_okay=False), metavar="FILE", help="Where the spec goes; stdout by default.")
@json_option
def detect(out: str | None, as_json: bool) -> None:
    """Write a spec of the GPU at hand, for --hw FILE: what it says of itself, on top of the nearest shipped GPU.

    \b
    simattn hw detect --out my_gpu.toml
    simattn predict --hw my_gpu.toml --pattern radial
    """
    from ..hwspecs.detect import detect as run
    from ..hwspecs.detect import nearest, spec_text

    if out is not None:
        if not out.endswith(".toml"):
            raise click.UsageError(f"a spec is a .toml file, got {out}")
        if not Path(out).absolute().parent.is_dir():
            raise click.UsageError(f"no such folder: {Path(out).parent}")
    facts = run()
    text = spec_text(facts)
    if out is not None:
        Path(out).write_text(text, encoding="utf-8")
        click.echo(f"simattn: wrote {out}", err=True)
    if as_json:
        click.echo(json.dumps({"inherits": nearest(facts), "file": out, "facts": facts._asdict()}))
    elif out is None:
        click.echo(text, nl=False)
