"""Related methods: published attention whose schedule is that of another entry, or that has none."""

from __future__ import annotations

import tomllib
from functools import lru_cache
from pathlib import Path
from types import MappingProxyType

from msgspec import Struct, field

from ..facts import UserError, convert
from .system import System, systems


class Related(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What to predict in place of a method, and why."""

    title: str
    """Of its paper."""
    what: str = field(name="is")
    """Its attention, in words."""
    pattern: str | None = None
    """Entry of the systems data that has its schedule; None where there is no schedule of tiles to simulate."""
    options: str = ""
    """Options of the commands that its sizes need."""
    why: str
    source: str = "from memory"

    def advice(self, name: str) -> str:
        """What to do, in one line."""
        start = f"{name} ({self.what}) is no pattern of its own: {self.why}"
        if self.pattern is None:
            return f"{start}; nothing is simulated for it"
        return f"{start}; use --pattern {self.pattern}{f' ({self.options})' if self.options else ''}"


@lru_cache(maxsize=1)
def related() -> MappingProxyType[str, Related]:
    """All related methods by name.

    >>> related()["smallthinker"].pattern
    'sliding_window'
    """
    document = tomllib.loads((Path(__file__).parent / "related.toml").read_text(encoding="utf-8"))
    return MappingProxyType({name: convert(entry, Related, f"related method {name}") for name, entry in document.items()})


def system_of(name: str) -> System:
    """The system behind the name or alias of a pattern.

    Raises
    ------
    UserError
        There is none, or the name is one of a related method: then what to predict in its place.

    Examples
    --------
    >>> system_of("radial").family
    'frame_band'
    """
    try:
        return systems.load(name)
    except UserError:
        stem = name.lower().replace("-", "_")
        if stem in related():
            raise UserError(related()[stem].advice(stem)) from None
        raise
