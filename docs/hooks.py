"""Lets the reference read the package from a checkout, where its rooms are folders side by side."""

import shutil
import tomllib
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
PACKAGES = ROOT / "build" / "package"
"""Where mkdocs.yml looks for the package as it is when installed."""


SHIM = '<script src="https://unpkg.com/iframe-worker/shim"></script>'
"""What the theme fetches for a search without a server: no page asks the network for anything."""


def on_post_page(output: str, **_: Any) -> str:
    """A page without the one request that it would make."""
    return output.replace(SHIM, "")


def on_post_template(output_content: str, **_: Any) -> str:
    """The same for pages of the theme, such as that of a missing page."""
    return output_content.replace(SHIM, "")


def on_startup(**_: Any) -> None:
    """Lay the package out as setuptools does, before anything looks for it."""
    shutil.rmtree(PACKAGES, ignore_errors=True)
    folders = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["setuptools"]["package-dir"]
    for name, folder in folders.items():
        source = ROOT / folder
        for module in source.rglob("*.py"):
            target = PACKAGES.joinpath(*name.split(".")) / module.relative_to(source)
            target.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(module, target)
