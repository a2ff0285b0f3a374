"""simattn kernels compile: what Triton kernels become on an architecture, without a GPU."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import build_options, json_option, user_build

if TYPE_CHECKING:
    from ..kernels.compiled import Compiled
    from ..kernels.source import Build


@click.command("compile")
@click.argument("names", nargs=-1)
@click.option(
    "--arch",
    metavar="LIST",
    help="Architectures, or GPUs whose rates to use; sm_80,sm_90,sm_100 by default, and all of --shipped.",
)
@click.option("--head-dim", default="", metavar="LIST", help="Head widths of bundled kernels; 128 by default.")
@click.option("--file", "file", metavar="FILE:FUNCTION", help="A function of your own in place of the bundled kernels.")
@build_options
@click.option("--shipped", is_flag=True, help="Show the counts that ship with simattn; compiles nothing.")
@click.option(
    "--write", "output", type=click.Path(dir_okay=False), metavar="FILE", help="Put the rows into a file of counts, too."
)
@json_option
def compile_(
    names: tuple[str, ...],
    arch: str | None,
    head_dim: str,
    file: str | None,
    shipped: bool,
    output: str | None,
    as_json: bool,
    **build: Any,
) -> None:
    """Compile Triton kernels without a GPU: registers, occupancy, and what a tile costs each unit.

    Cycles are those that one tile of keys without a mask takes each unit of an SM; serial is what tensor cores, exponentials, FMA
    and ALU take one after the other, which is how plain Triton loops run. Compiling takes some seconds a kernel.

    \b
    simattn kernels compile
    simattn kernels compile dense causal --arch sm_80,h200 --head-dim 64,128
    simattn kernels compile --shipped --json
    simattn kernels compile --file my_kernel.py:attention --arch sm_90 --warps 8 \\
        --signature '*bf16,*bf16,*bf16,*bf16,i32,fp32' \\
        --constexpr BLOCK_M=128 --constexpr BLOCK_N=64 --constexpr HEAD_DIM=128
    """
    from ..facts import UserError
    from ..kernels.compiled import ARCHS, architecture, compile_kernel

    if output is not None and not Path(output).absolute().parent.is_dir():
        raise click.UsageError(f"no such folder: {Path(output).parent}")
    given = arch if arch is not None else ",".join(ARCHS) if shipped else "sm_80,sm_90,sm_100"
    archs = [part.strip() for part in given.split(",") if part.strip()]
    asked = [architecture(part) for part in archs]
    if not asked:
        raise click.UsageError("--arch is empty")
    if shipped:
        if file or any(asked_of for asked_of in build.values()):
            raise click.UsageError("--shipped compiles nothing: leave --file and its options out")
        other = [gpu for found, gpu in asked if gpu != ARCHS[found]]
        if other:
            raise click.UsageError(f"cycles that ship are of one GPU an architecture, not of {other[0]}: leave --shipped out")
        rows = _shipped(names, [found for found, _ in asked], _widths(head_dim or "0"))
    else:
        rows, failed = [], []
        builds = _builds(names, file, head_dim, build)
        for number, (wanted, where) in enumerate((b, a) for b in builds for a in archs):
            click.echo(f"simattn: compiling {wanted.kernel} for {where} ({number + 1} of {len(builds) * len(archs)})", err=True)
            try:
                rows.append(compile_kernel(wanted, where))
            except UserError as error:
                if len(builds) * len(archs) == 1:
                    raise
                failed.append(str(error))
                click.echo(f"simattn: {' '.join(str(error).split())}", err=True)
        if not rows:
            raise UserError(failed[0])
    if output is not None:
        from ..kernels import counts

        counts.write(Path(output), rows)
        click.echo(f"simattn: wrote {output}", err=True)
    _print(rows, as_json=as_json)


def _widths(text: str) -> list[int]:
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not parts or not all(part.isdigit() for part in parts):
        raise click.BadParameter(f"expected numbers such as 64,128, got {text!r}", param_hint="--head-dim")
    return [int(part) for part in parts]


def _builds(names: tuple[str, ...], file: str | None, head_dim: str, build: dict[str, Any]) -> list[Build]:
    """What to compile, checked before the first of it is."""
    from ..facts import unknown_name
    from ..kernels.source import Build, bundled_builds

    if file is not None:
        if names:
            raise click.UsageError("give either names of bundled kernels or --file")
        widths = _widths(head_dim or "0")
        return [user_build(file, **build, head_dim=width) for width in widths]
    if any(build[name] for name in ("signature", "constexprs", "warps", "stages")):
        raise click.UsageError("--signature, --constexpr, --warps and --stages say how a --file is built")
    block = [build["block_m"], build["block_n"]]
    if any(block) and not all(size.isdigit() for size in block):
        raise click.UsageError("--block-m and --block-n of bundled kernels are two numbers")
    rows, keys = (int(size) if size else "" for size in block)
    known = bundled_builds().names()
    for name in names:
        if name not in known:
            raise unknown_name("bundled kernel", name, known)
    return [
        Build(kernel=name, head_dim=width, block_m=rows, block_n=keys)
        for name in names or known
        for width in _widths(head_dim or "128")
    ]


def _shipped(names: tuple[str, ...], archs: list[str], widths: list[int]) -> list[Compiled]:
    from ..facts import UserError, unknown_name
    from ..kernels import counts

    rows = counts.shipped()
    for name in names:
        if name not in {row.kernel for row in rows}:
            raise unknown_name("kernel with shipped counts", name, [row.kernel for row in rows])
    chosen = [
        row
        for row in rows
        if row.arch in archs and (not names or row.kernel in names) and (widths == [0] or row.config.head_dim in widths)
    ]
    if not chosen:
        raise UserError(
            f"no shipped counts for {', '.join(archs)}; there are for {', '.join(sorted({r.arch for r in rows})) or 'none'}"
        )
    return chosen


_COLUMNS = {"tensor": "tensor\ncycles", "ex2": "EX2\ncycles", "fma": "FMA\ncycles", "alu": "ALU\ncycles", "smem": "smem\ncycles"}


def _print(rows: list[Compiled], *, as_json: bool) -> None:
    import msgspec

    from .output import print_rows

    if as_json:
        print_rows([], [msgspec.to_builtins(row) for row in rows], form="json")
        return
    table = []
    for row in rows:
        config = row.config
        units = {**_COLUMNS, **({"tmem": "TMEM\ncycles"} if any(r.cycles.get("tmem") for r in rows) else {})}
        table.append(
            {
                "kernel": row.kernel,
                "arch": f"{row.arch[:2]}_{row.arch[2:]}",
                "tile": f"{config.block_m}x{config.block_n}x{config.head_dim}",
                "warps": config.warps,
                "stages": config.stages,
                "registers": row.registers,
                "spills": row.spills,
                "smem": round(row.shared_bytes / 1024, 1),
                "ctas": row.ctas_per_sm,
                **{title: round(row.cycles.get(unit, 0.0)) for unit, title in units.items()},
                "serial": round(row.serial_cycles),
            }
        )
    titles = {
        "arch": "arch",
        "tile": "tile\nq x kv x d",
        "registers": "registers\na thread",
        "spills": "spills\nB a thread",
        "smem": "shared\nKiB",
        "ctas": "CTAs\nan SM",
        "serial": "serial\ncycles",
    }
    print_rows([titles.get(key, key) for key in table[0]], table)
