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


def lines(page):
    """Commands of a page, in order."""
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    return [line.strip() for line in re.findall(r"^    ((?:simattn|python -c) .*)$", text, re.MULTILINE)]


@pytest.mark.parametrize("page", ["tour"])
def test_commands_work_as_written(page, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    typed = lines(page)
    assert len(typed) > 10
    for line in typed:
        program, *arguments = shlex.split(line)
        if program == "python":
            subprocess.run([sys.executable, *arguments], check=True)
        elif arguments != ["validate"]:  # as long as all other commands together, and tested elsewhere
            result = CliRunner().invoke(simattn, arguments)
            assert result.exit_code == 0, f"{line}\n{result.output}\n{result.exception}"
            assert result.stdout


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
