"""The page of the documentation on claims, written anew from verdicts."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Sequence
from statistics import median

from .setting import Quantity
from .verdict import SHARE_POINTS, TOLERANCES, Verdict, Word

HEADER = """\
# Claims of published systems

Written by `simattn claims --page docs/claims.md`; do not edit by hand. `simattn claims --system NAME` prints the
verdicts on one system, `--json` all fields of all of them.

{count} figures that sparse-attention systems report for themselves, each with its source in
`validation/system_results.jsonl`, were asked of the simulator as their sources state them
(`validation/claims/settings.toml`), kernels beside the attention and the rest of the model included. No constant of a
kernel or a GPU is made from them.

* **reproduced**: within the tolerance of its kind, which was set before any of them was simulated.
* **off**: outside of it; with the likely cause, where one is known.
* **under-specified**: the source leaves out what the figure depends on. Where it is one option, values of it were
  tried, and those that would reconcile the claim are given. A GPU that reconciles a claim is not thereby the one that
  was used.
* **not modelled**: what the figure needs is not in the simulator.

An assumption that a prediction rests on and its source does not state is in `assumes` of `--json`. Not blind, but decided
after a look at the errors without: that the FLUX speedups are asked with the paper's own share of attention; that the
warm-up of Radial's double length, windows that grow with the length (StreamingLLM in SparseD's table) and the density of
PBS-Attn are tried; that SVG has its own warm-up in Sparse-vDiT's table; and that a GPU which reconciles the dense row of a
table is taken for its other rows. So was the cause of every claim that is off. SALE's densities, and 9 of the slots of a
score on FuseMax's array, are from the claims' own sources. Where figures come from notes on papers, and not from the papers,
`source_kind` says so.

Models whose elementwise ops were counted are asked op by op (`--eager`) where their own code or that of Hugging Face ran them;
SVG, which ships fused kernels, is not. Before that was decided, the same rows had been seen with fused kernels.
"""

TITLES: dict[Word, str] = {
    "off": "Off",
    "under-specified": "Under-specified",
    "reproduced": "Reproduced",
    "not modelled": "Not modelled",
}


def claims_page(verdicts: Sequence[Verdict]) -> str:
    """The page, in Markdown."""
    sections = [HEADER.format(count=len(verdicts)), _counts(verdicts), "## By kind\n", _kinds(verdicts)]
    for word, title in TITLES.items():
        chosen = [v for v in verdicts if v.word == word]
        simulated = _ordered(v for v in chosen if v.gives)
        sections.append(f"## {title}\n")
        if simulated:
            sections.append(_rows(simulated))
        if len(simulated) < len(chosen):
            sections.append(_reasons(v for v in chosen if not v.gives))
    return "\n".join(sections)


def _counts(verdicts: Sequence[Verdict]) -> str:
    words = Counter(v.word for v in verdicts)
    simulated = Counter(v.word for v in verdicts if v.gives)
    lines = ["| verdict | claims | simulated |", "|---|---:|---:|"]
    lines += [
        f"| {word} | {words[word]} | {simulated[word]} |" for word in ("reproduced", "off", "under-specified", "not modelled")
    ]
    return "\n".join([*lines, f"| all | {len(verdicts)} | {simulated.total()} |"]) + "\n"


def errors_of(verdicts: Iterable[Verdict]) -> dict[Quantity, list[float]]:
    """Absolute relative errors of simulated claims by kind, in rising order, the largest kind first."""
    found: dict[Quantity, list[float]] = {}
    for v in verdicts:
        if v.gives is not None and v.error is not None:
            found.setdefault(v.gives, []).append(abs(v.error))
    return {kind: sorted(found[kind]) for kind in sorted(found, key=lambda kind: -len(found[kind]))}


def p90(errors: Sequence[float]) -> float:
    """The error that nine in ten do not exceed, of errors in rising order.

    >>> p90([0.1, 0.2, 0.3])
    0.3
    """
    return errors[min(len(errors) - 1, int(0.9 * len(errors)))]


def _kinds(verdicts: Sequence[Verdict]) -> str:
    lines = ["| kind | simulated | reproduced | tolerance | median | p90 |", "|---|---:|---:|---:|---:|---:|"]
    for kind, errors in errors_of(verdicts).items():
        held = sum(v.gives == kind and v.word == "reproduced" for v in verdicts)
        allowed = f"{SHARE_POINTS:g} points" if kind == "attention share" else f"{100 * TOLERANCES[kind]:g} %"
        middle, most = (f"{100 * error:.1f}" for error in (median(errors), p90(errors)))
        lines.append(f"| {kind} | {len(errors)} | {held} | {allowed} | {middle} | {most} |")
    words = (
        "\nAbsolute errors of predicted over published, in percent. Of claims whose source leaves out an option, the error is "
        "that of the nearest value tried, the least that there can be.\n"
    )
    return "\n".join([*lines, words])


def _ordered(verdicts: Iterable[Verdict]) -> list[Verdict]:
    """By system; within it those of one cause together, in the order of the table."""
    whys: dict[tuple[str, str], int] = {}
    numbered = [(v.claim.system.lower(), whys.setdefault((v.claim.system, v.why), len(whys)), v) for v in verdicts]
    return [v for *_, v in sorted(numbered, key=lambda row: row[:2])]


def _rows(verdicts: Sequence[Verdict]) -> str:
    why = any(v.why for v in verdicts)
    lines = [
        f"| claim | GPU | published | predicted | error {'| why ' if why else ''}|",
        f"|---|---|---:|---:|---:|{'---|' if why else ''}",
    ]
    above: tuple[str, str] = "", ""
    for v in verdicts:
        if v.claim.system != above[0]:
            lines.append(f"| **{_cell(v.claim.system)}** | | | | |{' |' if why else ''}")
        cells = [_short(v), _gpu(v), published(v), f"{v.predicted:.4g}", f"{100 * (v.error or 0.0):+.0f} %"]
        if why:
            cells.append(AS_ABOVE if (v.claim.system, v.why) == above else _cell(v.why or "not known"))
        lines.append(f"| {' | '.join(cells)} |")
        above = v.claim.system, v.why
    return "\n".join(lines) + "\n"


def _reasons(verdicts: Iterable[Verdict]) -> str:
    """Claims that were not simulated, by reason."""
    grouped: dict[str, Counter[str]] = {}
    for v in verdicts:
        grouped.setdefault(v.why, Counter())[v.claim.system] += 1
    lines = ["| claims | why | of |", "|---:|---|---|"]
    for why, systems in sorted(grouped.items(), key=lambda item: -item[1].total()):
        names = ", ".join(f"{name} ({n})" if len(systems) > 1 else name for name, n in systems.items())
        lines.append(f"| {systems.total()} | {_cell(why)} | {_cell(names)} |")
    return "\n".join(lines) + "\n"


def published(v: Verdict) -> str:
    """The figure of a claim, with its unit."""
    value = f"{v.claim.value:.6g}" if isinstance(v.claim.value, float) else str(v.claim.value)
    unit = (v.claim.unit or "").split(" (")[0].split(" total")[0]
    return f"{value} {unit}".strip()


AS_ABOVE = "as above"
"""In place of a cause that the row before has too."""

LONGEST = 100
"""Characters of a claim in a table."""


def _short(v: Verdict) -> str:
    text = re.sub(r"\s*\([^)]{40,}\)", "", v.claim.claim)
    return _cell(text if len(text) <= LONGEST else text[: LONGEST - 1].rsplit(" ", 1)[0] + " ...")


def _gpu(v: Verdict) -> str:
    return _cell((v.claim.gpu or "").split(";")[0].split(",")[0].split(" (")[0])


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
