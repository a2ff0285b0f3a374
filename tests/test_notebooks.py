"""Every notebook runs, and says what it said when it was committed."""

import importlib.util
from pathlib import Path

import nbformat
import pytest

FOLDER = Path(__file__).parents[1] / "notebooks"
BOOKS = sorted(FOLDER.glob("*.ipynb"))

spec = importlib.util.spec_from_file_location("execute_notebooks", FOLDER / "execute.py")
execute = importlib.util.module_from_spec(spec)
spec.loader.exec_module(execute)


def said(notebook):
    """What each cell prints, and how many pictures it draws; the pictures themselves depend on the versions of libraries."""
    cells = []
    for cell in notebook.cells:
        outputs = cell.get("outputs", [])
        printed = "".join(out["text"] for out in outputs if out["output_type"] == "stream")
        shown = [sorted(out["data"]) for out in outputs if "data" in out]
        cells.append((printed, shown))
    return cells


def test_all_are_there():
    names = ("01_roofline", "02_why_not_16x", "03_gna_design_space", "04_offload", "05_validation", "06_your_gpu")
    assert tuple(path.stem for path in BOOKS) == names


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_it_says_what_was_committed(path):
    committed = nbformat.read(path, as_version=4)
    nbformat.validate(committed)
    pictures = [shown for _, shown in said(committed) if shown]
    assert pictures
    assert all(kinds == [["application/vnd.plotly.v1+json", "image/png"]] for kinds in pictures)
    assert said(execute.executed(path)) == said(committed)


@pytest.mark.parametrize("path", BOOKS, ids=lambda path: path.stem)
def test_it_is_small_and_says_nothing_of_the_machine(path):
    text = path.read_text(encoding="utf-8")
    assert len(text) < 2**20
    assert "/tmp/" not in text
    assert "iopub" not in text
