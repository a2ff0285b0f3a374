"""The documentation: what it tells people to type works, and the site builds without a warning."""

import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from simattn.cli import simattn

ROOT = Path(__file__).parents[1]


def commands(page):
    """Lines that a page tells people to type."""
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    return re.findall(r"^    ((?:simattn|python -c) .*)$", text, re.MULTILINE)


PAGES = ("tour", "questions")
TYPED = [(page, line) for page in PAGES for line in commands(page) if line.startswith("simattn ")]


@pytest.mark.parametrize(("page", "line"), TYPED)
def test_commands_work_as_written(page, line, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if line == "simattn validate":
        pytest.skip("all published runs: simulated in test_readme")
    for code in (c for c in commands(page) if c.startswith("python")):
        subprocess.run(["bash", "-c", code.replace("python", shlex.quote(sys.executable), 1)], check=True)
    result = CliRunner().invoke(simattn, shlex.split(line)[1:])
    assert result.exit_code == 0, result.output
    assert result.output


def test_python_of_the_tour():
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "docs" / "tour.md").read_text(encoding="utf-8"), re.DOTALL)
    exec(code, {})


def test_site_builds(tmp_path):
    done = subprocess.run(
        [sys.executable, "-P", "-m", "mkdocs", "build", "--strict", "-q", "-f", str(ROOT / "mkdocs.yml"), "-d", str(tmp_path)],
        capture_output=True,
        text=True,
        cwd=tmp_path,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    page = (tmp_path / "api.html").read_text(encoding="utf-8")
    assert "latency_ms" in page
    # The site opens offline: nothing is fetched from elsewhere.
    assert not re.findall(r'(?:src|href)="https?://[^"]*\.(?:js|css|woff2?)"', page)
