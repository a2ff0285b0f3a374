"""Public threads: what our commands say of each, and the page that shows it."""

import json
import re
import subprocess
import sys
from pathlib import Path

import pytest
from simattn.facts import UserError

from simattn import complaints

PAGE = Path(__file__).parents[2] / "docs" / "complaints.md"
NUMBER = re.compile(r"\d[\d,]*\.?\d*(?:e[+-]?\d+)?")


def words_and_numbers(text):
    return NUMBER.split(text), [float(number.replace(",", "").rstrip(".")) for number in NUMBER.findall(text)]


def test_every_thread_and_the_page():
    """Each answer agrees or differs as its entry says, and the page says the same; numbers of it may be 10 % old."""
    found = list(complaints.all_answers())
    missed = {
        (a.thread.name, finding.what): value
        for a in found
        for finding, value in zip(a.thread.findings, a.values, strict=True)
        if a.thread.agrees and not finding.holds(value)
    }
    assert missed == {}
    assert [a.thread.name for a in found if not a.thread.agrees and a.agrees()] == [], "agrees now: say so in complaints.toml"
    words, numbers = words_and_numbers(complaints.page(found))
    written_words, written = words_and_numbers(PAGE.read_text(encoding="utf-8"))
    assert words == written_words
    assert written == pytest.approx(numbers, rel=0.1)


def test_enough_threads_arrive_at_our_cause():
    settled = [t for t in complaints.threads() if t.by != "nobody"]
    assert sum(t.agrees for t in settled) >= 12


def test_threads_are_told_apart():
    names = [t.name for t in complaints.threads()]
    urls = [t.url for t in (*complaints.threads(), *complaints.left_out())]
    assert len(set(names)) == len(names)
    assert len(set(urls)) == len(urls)


def test_an_answer_that_misses_differs():
    thread = complaints.thread("flex-launch")
    values = complaints.answer(thread).values
    assert complaints.Answer(thread, values).agrees()
    assert not complaints.Answer(thread, (False, values[1])).agrees()
    assert not complaints.Answer(thread, (values[0], 0.07)).agrees()


def test_the_command():
    command = [sys.executable, "-P", "-c", "from simattn.cli import main; main()", "complaints"]
    one = subprocess.run([*command, "flex-launch", "--json"], capture_output=True, text=True, check=True)
    answer = json.loads(one.stdout)
    assert answer["agrees"]
    assert [finding["holds"] for finding in answer["findings"]] == [True, True]
    everything = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "radial-no-faster" in everything
    unknown = subprocess.run([*command, "flex-lunch"], capture_output=True, text=True, check=False)
    assert unknown.returncode == 2
    assert "flex-launch" in unknown.stderr
    assert len(unknown.stderr.splitlines()) == 1


def test_an_unknown_thread():
    with pytest.raises(UserError, match="thread"):
        complaints.thread("nothing")
