"""Execute notebooks in place: `python notebooks/execute.py [NAME.ipynb ...]`, all of this folder by default."""

from __future__ import annotations

import sys
from pathlib import Path

import nbformat
from nbclient import NotebookClient

HERE = Path(__file__).parent


def executed(path: Path) -> nbformat.NotebookNode:
    """A notebook with fresh outputs, and nothing in it that says when or where it ran."""
    notebook = nbformat.read(path, as_version=4)
    client = NotebookClient(
        notebook, timeout=300, kernel_name="python3", record_timing=False, resources={"metadata": {"path": str(HERE)}}
    )
    client.execute()
    notebook.metadata = {"kernelspec": notebook.metadata["kernelspec"], "language_info": {"name": "python"}}
    for cell in notebook.cells:
        # Progress and warnings of this one run.
        cell["outputs"] = (
            [out for out in cell.get("outputs", []) if out.get("name") != "stderr"] if cell.cell_type == "code" else []
        )
        if cell.cell_type != "code":
            del cell["outputs"]
    return notebook


def main(names: list[str]) -> None:
    for path in [Path(name) for name in names] or sorted(HERE.glob("*.ipynb")):
        nbformat.write(executed(path), path)
        print(f"{path.name}: {path.stat().st_size / 1024:,.0f} KiB")


if __name__ == "__main__":
    main(sys.argv[1:])
