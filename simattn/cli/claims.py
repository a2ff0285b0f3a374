"""simattn claims: what published systems report for themselves, asked of the simulator."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import click

from .options import json_option
from .output import progress_bar
from .predict import compile_notice

if TYPE_CHECKING:
    from ..validation.claims import Claim, Verdict


@click.command()
@click.option("--system", metavar="NAME", help="Claims of the systems whose names contain this.")
@click.option("--page", type=click.Path(dir_okay=False), metavar="FILE", help="Write the page of the documentation.")
@json_option
def claims(system: str | None, page: str | None, as_json: bool) -> None:
    """Hold the claims of published systems against predictions.

    Every claim gets a verdict: reproduced, off (by how much, and why), under-specified (what is missing, and which values of it
    would reconcile it) or not modelled.

    \b
    simattn claims --system radial
    simattn claims --json > verdicts.json
    """
    from ..facts import UserError
    from ..validation.claims import claims_page, read_claims

    if page and system:
        raise click.UsageError("--page is of all claims: leave --system out")
    if page and not Path(page).absolute().parent.is_dir():
        raise click.UsageError(f"no such folder: {Path(page).parent}")
    chosen = [claim for claim in read_claims() if not system or system.lower() in claim.system.lower()]
    if not chosen:
        names = sorted({claim.system for claim in read_claims()})
        raise UserError(f"no system's name contains {system!r}; claims are of: {', '.join(names)}")
    verdicts = _judged(chosen)
    if page:
        Path(page).write_text(claims_page(verdicts), encoding="utf-8")
        click.echo(f"simattn: wrote {page}", err=True)
    if as_json:
        click.echo(json.dumps([verdict.plain() for verdict in verdicts]))
    elif not page:
        _print(verdicts)


def _judged(chosen: Sequence[Claim]) -> list[Verdict]:
    """Verdicts, beside a bar on stderr."""
    from ..validation.claims import judge

    found = []
    with progress_bar("simulating", len(chosen)) as update, compile_notice():
        for claim in chosen:
            found.append(judge(claim))
            update(advance=1)
    return found


def _print(verdicts: Sequence[Verdict]) -> None:
    from ..report import print_table

    print_table(
        ["system", "claim", "GPU", "published", "predicted", "error %", "verdict", "why"],
        [
            [
                v.claim.system,
                v.claim.claim,
                v.claim.gpu or "",
                "" if v.claim.value is None else f"{v.claim.value} {v.claim.unit or ''}".strip(),
                "" if v.predicted is None else f"{v.predicted:.4g}",
                "" if v.error is None else f"{100 * v.error:+.0f}",
                v.word,
                v.why,
            ]
            for v in verdicts
        ],
    )
    counts = Counter(v.word for v in verdicts)
    simulated = sum(v.gives is not None for v in verdicts)
    click.echo(
        "\n" + ", ".join(f"{n} {word}" for word, n in counts.most_common()) + f"; {simulated} of {len(verdicts)} simulated"
    )
