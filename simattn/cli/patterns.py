"""simattn patterns: what --pattern takes."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import click

from .options import json_option
from .output import Form, print_rows, row_formats

if TYPE_CHECKING:
    from ..simulator import Prediction
    from ..workloads import Pattern, System

TIERS = {0: "baseline", 1: "published", 2: "related"}


@click.group()
def patterns() -> None:
    """Patterns: list, show with parameters, published workload and source."""


@patterns.command("list")
@click.option("--related", "show_related", is_flag=True, help="Methods that run as another pattern does, or as none.")
@row_formats
def list_(show_related: bool, form: Form) -> None:
    """List the patterns that --pattern takes."""
    from ..workloads import related, systems

    if show_related:
        others = [
            {"name": name, "attention": r.what, "pattern": r.pattern or "", "options": r.options, "why": r.why, "paper": r.title}
            for name, r in related().items()
        ]
        print_rows(["name", "attention", "--pattern", "options", "why", "paper"], others, form=form)
        return
    entries = [systems.load(name) for name in systems.names()]
    rows = [
        {
            "name": e.name,
            "title": e.title,
            "kind": TIERS[e.tier],
            "family": e.family,
            "exactness": e.exactness,
            "summary": e.summary,
        }
        for e in entries
    ]
    print_rows(["name", "pattern", "kind", "family", "rule", "a query sees"], rows, form=form)
    if form == "table":
        click.echo(f"simattn: {len(rows)} patterns; {len(related())} related methods with --related", err=True)


@patterns.command()
@click.argument("name")
@click.option("--hw", default="h100", show_default=True, metavar="GPU", help="GPU on which its plan is priced.")
@json_option
def show(name: str, hw: str, as_json: bool) -> None:
    """Show one pattern: rule, picture, parameters, published workload, kernels, policy, claims, sources.

    For a picture in a file: simattn mask --pattern NAME -o NAME.png.
    """
    import msgspec

    from ..facts import UserError
    from ..simulator import predict
    from ..workloads import Pattern, related, systems

    stem = name.lower().replace("-", "_")
    if stem in related() and stem not in {*systems.names(), *systems.aliases()}:
        other = related()[stem]
        click.echo(
            json.dumps({"name": stem, **msgspec.to_builtins(other)})
            if as_json
            else f"{other.title}\n{other.advice(stem)}\nsource: {other.source}"
        )
        return
    entry = systems.load(name)
    if entry.family in ("listed", "mask_function"):
        raise UserError(f"pattern {entry.name} is what its file says: simattn predict --mask FILE, or --mask-mod FILE.py:NAME")
    chosen = Pattern(name, published=True)
    answer = predict(name, hw)
    if as_json:
        about = {**msgspec.to_builtins(entry), "defaults": chosen.params(), "tokens": chosen.default_layout().tokens}
        click.echo(json.dumps({**about, "plan": _plan_rows(entry, answer)}))
        return
    _print(entry, chosen, answer)


def _print(entry: System, chosen: Pattern, answer: Prediction) -> None:
    from ..report import print_table

    click.echo(f"{entry.title} ({entry.name}{', ' + entry.paper if entry.paper else ''}): {entry.summary}")
    if entry.formula:
        click.echo(entry.formula)
    click.echo(f"{entry.exactness}{': ' + entry.why if entry.why else ''}; run as {entry.style.replace('_', ' ')}\n")
    for line in _picture(chosen, answer):
        click.echo(f"  {line}")
    problem, workload, layout = answer.problem, entry.workload, chosen.default_layout()
    grid = "x".join(map(str, layout.grid))
    click.echo(
        f"\nworkload: {workload.model or 'its own'}, {layout.tokens:,} tokens (grid {grid}, text {layout.text}), batch "
        f"{problem['batch']}, {problem['q_heads']} query and {problem['kv_heads']} K/V heads of {problem['head_dim']}, "
        f"{problem['dtype']}, {problem['phase']}"
    )
    print_table(["parameter (--set)", "value"], [[key, value] for key, value in chosen.params().items()])
    for part, family in zip(entry.parts, chosen.parts, strict=True):
        values = {field: getattr(family, field) for field in family.__struct_fields__}
        print_table(["parameter (--set)", "value"], [[f"{part.name}.{key}", value] for key, value in values.items()])
    click.echo(f"\nplan on {answer.gpu}: {answer.latency_ms:.4g} ms, {answer.speedup:.2f} x the dense call's speed")
    rows = _plan_rows(entry, answer)
    print_table(["op", "kind", "us", "here", "by"], [list(row.values()) for row in rows])
    policy = {field: getattr(entry.policy, field) for field in entry.policy.__struct_fields__}
    if any(policy.values()):
        print_table(["policy", "value"], [[key.replace("_", " "), value] for key, value in policy.items() if value])
    if entry.select:
        added = [[side.name, side.kind, _cost(side.formulas())] for side in entry.select]
        print_table(["a selecting layer adds", "kind", "by"], added)
    if entry.claims:
        claims = [[c.metric, f"{c.value:g}", c.setting, c.source] for c in entry.claims]
        print_table(["claim", "value", "setting", "source"], claims)
    print_table(["", "origin", "source"], [[key, p.kind, p.source] for key, p in entry.meta.items()])


def _plan_rows(entry: System, answer: Prediction) -> list[dict[str, Any]]:
    """Each op with its time, and the formulas of what it costs."""
    formulas = {side.name: side.formulas() for side in entry.side}
    kinds = {side.name: side.kind for side in entry.side}
    rows = [
        {
            "op": op.op,
            "kind": "attention",
            "latency_us": op.latency_ms * 1e3,
            "amount": "",
            "cost": f"kernel {op.kernel}" + (f", {op.launches} launches" if op.launches > 1 else ""),
        }
        for op in answer.attention
    ]
    for op in answer.side:
        cost = _cost(formulas.get(op.op, {}))
        amounts = [f"{n / 1e9:.3g} {unit}" for n, unit in ((op.flops, "GFLOP"), (op.bytes, "GB")) if n]
        kind, time = kinds.get(op.op, "memory"), op.latency_ms * 1e3
        rows.append({"op": op.op, "kind": kind, "latency_us": time, "amount": ", ".join(amounts), "cost": cost})
    return rows


def _cost(formulas: dict[str, Any]) -> str:
    return "; ".join(f"{field} = {formula}" for field, formula in formulas.items() if formula != 1)


def _picture(chosen: Pattern, answer: Prediction) -> list[str]:
    """The tiles of one head; nothing where no schedule of one head exists."""
    from ..facts import UserError
    from ..picture import block_picture
    from ..workloads import Tiling

    try:
        return block_picture(chosen.schedule(chosen.default_layout(), Tiling(q=answer.q_tile, kv=answer.kv_tile)))
    except UserError:
        return []
