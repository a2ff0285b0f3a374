"""Complaints: public threads about sparse attention that is not as fast as hoped, and what our commands say of them.

A thread is data (`complaints.toml`): what was asked and measured, the cause that the thread arrived at, the commands that answer
it, and findings: values of their answers, and where each must lie for the answers to say what the thread says.
"""

from __future__ import annotations

import io
import json
import shlex
import tomllib
from collections.abc import Callable, Iterable
from contextlib import redirect_stdout
from functools import cache
from pathlib import Path
from typing import Any, Literal, NamedTuple

import msgspec
from msgspec import Struct
from simpleeval import EvalWithCompoundTypes

from .facts import unknown_name


class Finding(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A value of the answers, and where it must lie.

    Attributes
    ----------
    what : str
        What it is, with its unit.
    value : str
        An expression over the answers, each under its name: `a.speedup`, `b.latency_ms / a.latency_ms`. Lists whose items have
        a name (`stages`, `side`, `parts`, `circumstances`, `what_if`) are read by it: `a.stages.side.factor`.
    low, high : float, optional
        Where a number must lie.
    word : str, optional
        What a word must be, or hold.
    """

    what: str
    value: str
    low: float = -float("inf")
    high: float = float("inf")
    word: str = ""

    def holds(self, value: Any) -> bool:
        """Whether a value is what the thread says.

        >>> Finding(what="speedup", value="a.speedup", low=2).holds(3.1)
        True
        >>> Finding(what="judgement", value="a.measured.judgement", word="bug").holds("likely_a_bug")
        True
        """
        return self.word in str(value) if self.word else self.low <= float(value) <= self.high


class Thread(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """A public thread.

    Attributes
    ----------
    by : str
        Whose the cause is: the maintainers' of what was complained of, another user's, or the asker's own; `nobody` where the
        thread is open, and then `cause` says what was suspected.
    ask : dict of str
        Commands that answer it, by the names that findings use.
    agrees : bool
        Whether our answers give the cause that the thread arrived at, as far as `findings` say it.
    note : str
        What we assumed because the thread does not say it, and where we differ.
    """

    name: str
    url: str
    asked: str
    measured: str
    cause: str
    by: Literal["maintainer", "user", "asker", "nobody"]
    ask: dict[str, str]
    findings: tuple[Finding, ...]
    agrees: bool = True
    note: str = ""


class Answer(NamedTuple):
    """What the commands say of a thread."""

    thread: Thread
    values: tuple[Any, ...]

    def agrees(self) -> bool:
        """Whether every finding holds."""
        return all(finding.holds(value) for finding, value in zip(self.thread.findings, self.values, strict=True))


class LeftOut(Struct, frozen=True, forbid_unknown_fields=True):
    """A public thread that is not answered, and why."""

    url: str
    why: str


class _File(Struct, frozen=True, forbid_unknown_fields=True):
    thread: tuple[Thread, ...]
    left_out: tuple[LeftOut, ...]


@cache
def _file() -> _File:
    text = (Path(__file__).parent / "complaints.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), _File)


def threads() -> tuple[Thread, ...]:
    """All threads that are answered, in the order of the file.

    >>> len(threads()) > 12
    True
    """
    return _file().thread


def left_out() -> tuple[LeftOut, ...]:
    """Threads that are not."""
    return _file().left_out


def thread(name: str) -> Thread:
    """One of them by its name.

    Raises
    ------
    UserError
        There is no such thread.
    """
    known = {t.name: t for t in threads()}
    if name not in known:
        raise unknown_name("thread", name, known)
    return known[name]


def answer(asked: Thread) -> Answer:
    """Run the commands of a thread, in this process, and read their answers.

    >>> answer(thread("flex-launch")).agrees()
    True
    """
    found = {name: _by_name(_run(command)) for name, command in asked.ask.items()}
    read = EvalWithCompoundTypes(names=found, functions={"min": min, "max": max, "abs": abs})
    return Answer(asked, tuple(read.eval(finding.value) for finding in asked.findings))


def _run(command: str) -> Any:
    """The JSON that a command prints."""
    from .cli import simattn

    written = io.StringIO()
    with redirect_stdout(written):
        simattn.main([*shlex.split(command)[1:], "--json"], prog_name="simattn", standalone_mode=False)
    return json.loads(written.getvalue())


_KEYS = ("stage", "name", "op")
"""What items of a list are called by."""


def _by_name(value: Any) -> Any:
    """JSON in which items that have a name are found by it."""
    if isinstance(value, dict):
        return {key: _by_name(item) for key, item in value.items()}
    if not isinstance(value, list):
        return value
    key = next((key for key in _KEYS if value and all(isinstance(item, dict) and key in item for item in value)), None)
    return [_by_name(item) for item in value] if key is None else {item[key]: _by_name(item) for item in value}


HEADER = """\
# Complaints

Written by `simattn complaints --page docs/complaints.md`; do not edit by hand.

People ask in public why their sparse attention is not as fast as it should be. Each section below is such a thread: what was
asked and measured there, the cause at which the thread arrived, and what our commands answer. An answer agrees if each of its
numbers lies where the thread says, within the range in brackets; a test runs every command and checks them all. Ranges were
chosen after our answers had been seen. Threads were read as excerpts, so their answers may be partial. Shapes that a thread does
not give are ours, and its note says which.
"""


def page(answers: Iterable[Answer]) -> str:
    """The page, in Markdown: a table of all threads, then each with its commands and numbers."""
    found = list(answers)
    settled = [a for a in found if a.thread.by != "nobody"]
    agreed = sum(a.agrees() for a in settled)
    rows = [f"| [{a.thread.name}](#{a.thread.name}) | {a.thread.asked} | {a.thread.cause} | {_verdict(a)} |" for a in found]
    table = ["| thread | asked | cause, as the thread has it | our answer |", "|---|---|---|---|", *rows]
    summary = f"{len(settled)} of {len(found)} threads arrived at a cause; {agreed} of our answers give it."
    others = ["## Left out", "", *(f"- <{t.url}>: {t.why}" for t in left_out()), ""]
    return "\n".join([HEADER, summary, "", *table, "", *(section(a) for a in found), *others])


def _verdict(a: Answer) -> str:
    if a.thread.by == "nobody":
        return "the thread is open" if a.agrees() else "the thread is open, and differs"
    return "agrees" if a.agrees() else "differs"


_BY = {
    "maintainer": "a maintainer of it",
    "user": "another user",
    "asker": "the asker, afterwards",
    "nobody": "nobody: the thread is open",
}


def section(a: Answer) -> str:
    """One thread with its commands and numbers, in Markdown."""
    t = a.thread
    lines = [
        f"## {t.name}",
        "",
        f"<{t.url}>",
        "",
        f"- asked: {t.asked}",
        f"- measured: {t.measured}",
        f"- cause: {t.cause} (says {_BY[t.by]})",
        f"- our answer: {_verdict(a)}",
        *(
            f"    - {finding.what}: {_number(value)} ({_range(finding)})"
            for finding, value in zip(t.findings, a.values, strict=True)
        ),
        *([f"- note: {t.note}"] if t.note else []),
        "",
        *(f"    {command}" for command in t.ask.values()),
        "",
    ]
    return "\n".join(lines)


def _number(value: Any) -> str:
    return f"{value:,.3g}" if isinstance(value, float) else str(value)


def _range(finding: Finding) -> str:
    """Where a value must lie, in words."""
    if finding.word:
        return f"the thread: {finding.word}"
    if finding.high == float("inf"):
        return f"at least {finding.low:g}"
    return f"at most {finding.high:g}" if finding.low == -float("inf") else f"{finding.low:g} to {finding.high:g}"


def all_answers(on_thread: Callable[[str], None] = lambda name: None) -> Iterable[Answer]:
    """Every thread, answered."""
    for asked in threads():
        on_thread(asked.name)
        yield answer(asked)
