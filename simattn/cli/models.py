"""simattn models: what --model takes."""

from __future__ import annotations

import json

import click

from .options import json_option
from .output import Form, print_rows, row_formats


@click.group()
def models() -> None:
    """Published models: list, show with their settings."""


@models.command("list")
@row_formats
def list_(form: Form) -> None:
    """List the models that --model takes."""
    from ..workloads import models as shelf

    entries = [shelf.load(name) for name in shelf.names()]
    rows = [
        {
            "name": m.name,
            "title": m.title,
            "layers": m.layers,
            "q_heads": m.q_heads,
            "kv_heads": m.kv_heads,
            "head_dim": m.head_dim,
            "tokens": m.layout().tokens,
            "default": m.default,
        }
        for m in entries
    ]
    print_rows(["name", "model", "layers", "q heads", "kv heads", "head dim", "tokens", "default shape"], rows, form=form)


@models.command()
@click.argument("name")
@json_option
def show(name: str, as_json: bool) -> None:
    """Show one model: sizes, settings, sources."""
    import msgspec

    from ..workloads import models as shelf

    model = shelf.load(name)
    if as_json:
        click.echo(json.dumps(msgspec.to_builtins(model)))
        return
    from ..report import print_table

    click.echo(
        f"{model.title} ({model.name}): {model.layers} layers, hidden {model.hidden}, {model.q_heads} query heads and "
        f"{model.kv_heads} K/V heads of {model.head_dim}"
    )
    print_table(
        ["shape (--shape)", "grid", "text", "tokens", "steps", "note"],
        [[key, "x".join(map(str, s.grid)), s.text, model.layout(key).tokens, s.steps, s.note] for key, s in model.shapes.items()],
    )
    print_table(["", "origin", "source"], [[key, p.kind, p.source] for key, p in model.meta.items()])
