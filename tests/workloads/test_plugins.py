"""A family of another package: found by its entry point, used by a system in a TOML file."""

import sys

import pytest
from simattn.facts import UserError
from simattn.workloads import schedule, systems
from simattn.workloads.families import family_type

MODULE = '''
from msgspec import Struct

from simattn.workloads.families import Band


class EveryOther(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The window of a band, whatever it is called here."""

    reach: int = 64

    def mask_class(self):
        return "window"

    def without_pattern(self):
        return Band(causal=True)

    def schedule(self, layout, tiling):
        return Band(window=self.reach).schedule(layout, tiling)
'''

SYSTEM = """
name = "theirs"
title = "Of another package"
family = "every_other"
summary = "a window"
params = { reach = 128 }

[workload]
model = "llama-3.1-8b"

[meta]
rule = { kind = "recalled", source = "a test" }
"""


@pytest.fixture
def installed(tmp_path, monkeypatch):
    """A distribution with an entry point, on the path."""
    (tmp_path / "their_families.py").write_text(MODULE, encoding="utf-8")
    info = tmp_path / "their_families-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: their-families\nVersion: 1.0\n", encoding="utf-8")
    (info / "entry_points.txt").write_text("[simattn.families]\nevery_other = their_families:EveryOther\n", encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield tmp_path
    sys.modules.pop("their_families", None)


def test_a_family_of_another_package_makes_a_system(installed):
    path = installed / "theirs.toml"
    path.write_text(SYSTEM, encoding="utf-8")
    ours = schedule("sliding_window", seq_q=1024, window=128)
    theirs = schedule(str(path), seq_q=1024)
    assert (theirs.to_mask() == ours.to_mask()).all()
    assert systems.load(str(path)).family == "every_other"


def test_it_is_named_among_the_known_ones(installed):
    with pytest.raises(UserError, match="unknown family 'every_othr'; did you mean 'every_other'"):
        family_type("every_othr")


def test_without_the_package_its_name_is_unknown(tmp_path):
    path = tmp_path / "theirs.toml"
    path.write_text(SYSTEM, encoding="utf-8")
    with pytest.raises(UserError, match="unknown family 'every_other'"):
        schedule(str(path), seq_q=1024)
