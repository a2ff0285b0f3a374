"""simattn complaints: public threads about slow sparse attention, and our answers."""

from __future__ import annotations

from pathlib import Path

import click

from .options import json_option


@click.command()
@click.argument("name", required=False)
@click.option("--page", type=click.Path(dir_okay=False), metavar="FILE", help="Write all threads with our answers as Markdown.")
@json_option
def complaints(name: str | None, page: str | None, as_json: bool) -> None:
    """Answer public threads about sparse attention that is not as fast as hoped.

    Each is asked of the commands that it needs: the place to look for the one that is like yours.

    \b
    simattn complaints                    all of them, with the cause of each
    simattn complaints radial-no-faster   one: its commands, and what they say
    """
    import msgspec

    from .. import complaints as threads

    if page and (name or as_json):
        raise click.UsageError("--page writes all threads: give no name and no --json")
    if page:
        text = threads.page(threads.all_answers(lambda thread: click.echo(f"simattn: {thread}", err=True)))
        Path(page).write_text(text, encoding="utf-8")
        return
    if name is None:
        if as_json:
            click.echo(msgspec.json.encode(threads.threads()).decode())
            return
        from ..report import print_table

        print_table(["thread", "asked", "cause, as the thread has it"], [[t.name, t.asked, t.cause] for t in threads.threads()])
        return
    found = threads.answer(threads.thread(name))
    if as_json:
        rows = [
            {"what": f.what, "value": v, "holds": f.holds(v)} for f, v in zip(found.thread.findings, found.values, strict=True)
        ]
        click.echo(msgspec.json.encode({"thread": found.thread, "findings": rows, "agrees": found.agrees()}).decode())
    else:
        click.echo(threads.section(found))
