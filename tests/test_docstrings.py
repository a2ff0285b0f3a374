"""Every example in a docstring is true."""

import doctest
import importlib
import pkgutil

import pytest

import simattn

MODULES = [m.name for m in pkgutil.walk_packages(simattn.__path__, "simattn.")] + [
    f"simattn.{room}" for room in ("facts", "hwspecs", "workloads", "kernels", "simulator", "validation")
]
ROOMS = [
    m.name
    for room in (
        "facts",
        "hwspecs",
        "workloads",
        "workloads.families",
        "kernels",
        "simulator",
        "validation",
        "validation.bench",
        "validation.claims",
        "validation.sources",
    )
    for m in pkgutil.iter_modules(importlib.import_module(f"simattn.{room}").__path__, f"simattn.{room}.")
]


@pytest.mark.parametrize("name", sorted({"simattn", *MODULES, *ROOMS}))
def test_examples_are_true(name):
    assert doctest.testmod(importlib.import_module(name)).failed == 0


def test_examples_are_found():
    attempted = {name: doctest.testmod(importlib.import_module(name)).attempted for name in ROOMS}
    assert attempted["simattn.workloads.families.box"] >= 2
    assert sum(attempted.values()) >= 30
