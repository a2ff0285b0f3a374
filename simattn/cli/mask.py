"""simattn mask: the tiles that a kernel visits, as numbers, files and pictures."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .options import json_option, layout_options, parse_settings, pattern_option, tile_options

if TYPE_CHECKING:
    from ..workloads import TileSchedule

FORMATS = (".npz", ".json", ".png", ".html")


@click.command()
@pattern_option
@click.option("--hw", default="h100", show_default=True, metavar="GPU", help="GPU whose kernel sets the tiles.")
@click.option("--model", metavar="NAME", help="Tokens of a published model.")
@click.option("--shape", metavar="NAME", help="One of the model's settings.")
@layout_options
@tile_options
@click.option("--kernel", metavar="NAME", help="Kernel whose tiles are used.")
@click.option("-o", "--output", type=click.Path(dir_okay=False), metavar="FILE", help="Write .npz, .json, .png or .html.")
@json_option
def mask(
    pattern: str | None,
    hw: str,
    settings: tuple[str, ...],
    q_tile: Any,
    kv_tile: Any,
    kernel: str | None,
    output: str | None,
    as_json: bool,
    **options: Any,
) -> None:
    """Show the tiles of a pattern (one head), and write them as numbers or as a picture.

    \b
    simattn mask --pattern radial -o radial.png
    simattn mask --pattern gna --grid 256x256 --set window=80x80 --q-tile 16x16 --kv-tile 16x8 -o flux.npz
    """
    import msgspec

    from ..facts import UserError
    from ..hwspecs import gpus
    from ..simulator import choose_kernel, question, with_tile

    if pattern is None:
        raise click.UsageError("give --pattern")
    if output is not None and Path(output).suffix not in FORMATS:
        raise UserError(f"--output must end in one of {', '.join(FORMATS)}, got {output}")
    params, hardware = parse_settings(settings)
    asked = question(pattern, params=params, **options)
    mask_class = asked.pattern.family.mask_class()
    choice = choose_kernel(gpus.load(hw, hardware), asked.problem, mask_class, len(asked.layout.grid), kernel)
    # One head is shown, whatever the kernel packs into a tile.
    tiling = msgspec.structs.replace(with_tile(choice, asked.problem, q_tile, kv_tile).tiling, pack=1)
    schedule = asked.pattern.schedule(asked.layout, tiling)
    if output is not None:
        _write(schedule, Path(output), asked.pattern.system.title)
        click.echo(f"simattn: wrote {output}", err=True)
    summary = {
        "pattern": asked.pattern.name,
        "q_tile": list(tiling.q),
        "kv_tile": list(tiling.kv),
        "q_tiles": schedule.q_tiles,
        "kv_tiles": schedule.kv_tiles,
        "visited": schedule.visited,
        "full": schedule.full,
        "partial": schedule.partial,
        "max_visited": schedule.max_visited,
        "pairs": schedule.pairs,
        "density_tiles": schedule.visited / (schedule.q_tiles * schedule.kv_tiles * len(schedule.groups)),
        "density_pairs": schedule.pairs / (schedule.seq_q * schedule.seq_kv),
    }
    if as_json:
        click.echo(json.dumps(summary))
        return
    from ..report import print_table

    print_table(["", "one head"], [[key.replace("_", " "), value] for key, value in summary.items()])


def _write(schedule: TileSchedule, path: Path, title: str) -> None:
    if path.suffix in (".png", ".html"):
        from ..plots import save
        from ..plots.blocks import blocks_figure

        save(blocks_figure(schedule, title), path)
        return
    import numpy as np

    indptr, indices = schedule.to_bsr()
    partial = ~schedule.full_mask().reshape(-1, schedule.kv_tiles)
    kinds = partial[np.repeat(np.arange(len(indptr) - 1), np.diff(indptr)), indices].astype(np.uint8)
    content: dict[str, Any] = {"indptr": indptr, "indices": indices, "kinds": kinds}
    sizes = {name: getattr(schedule, name) for name in ("q_tile", "kv_tile", "seq_q", "seq_kv")}
    if path.suffix == ".npz":
        np.savez_compressed(path, **content, **sizes)
    else:
        path.write_text(json.dumps({**{k: v.tolist() for k, v in content.items()}, **sizes}), encoding="utf-8")
