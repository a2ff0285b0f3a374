"""A folder of TOML files of one kind: names, aliases, inheritance and checked loading."""

from __future__ import annotations

import os
import re
import tomllib
from collections.abc import Iterator
from copy import deepcopy
from functools import lru_cache
from pathlib import Path
from typing import Any, Generic, TypeVar, get_args

import msgspec

from .errors import UserError, unknown_name

T = TypeVar("T", bound=msgspec.Struct)
Document = dict[str, Any]
"""A TOML document, as the standard library reads it."""


def merge(base: Document, over: Document) -> Document:
    """Lay one document over another: tables merge, everything else is replaced.

    >>> merge({"a": {"x": 1, "y": 2}}, {"a": {"y": 3}})
    {'a': {'x': 1, 'y': 3}}
    """
    merged = dict(base)
    for key, value in over.items():
        below = merged.get(key)
        merged[key] = merge(below, value) if isinstance(below, dict) and isinstance(value, dict) else value
    return merged


def layer(base: Document, over: Document) -> Document:
    """Merge, and forget where a value came from that `over` replaces without saying where its own comes from.

    >>> layer({"a": {"x": 1}, "meta": {"a.x": {}}}, {"a": {"x": 2}})
    {'a': {'x': 2}, 'meta': {}}
    """
    merged = merge(base, over)
    replaced = set(_paths({key: value for key, value in over.items() if key != "meta"})) - over.get("meta", {}).keys()
    if "meta" in merged:
        merged["meta"] = {path: origin for path, origin in merged["meta"].items() if path not in replaced}
    return merged


def _paths(document: Document, prefix: str = "") -> Iterator[str]:
    """Dotted paths of all values."""
    for key, value in document.items():
        if isinstance(value, dict):
            yield from _paths(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}"


RESERVED = ("aliases", "sources", "labels")
"""Stems of files in a folder that are no entries, but say something about them."""


class Shelf(Generic[T]):
    """The TOML files of one folder, each holding one `T`, found by file stem, alias or path.

    A file may name a parent in `inherits` and, where the shelf has `defaults`, a key of that folder (for GPUs: `arch`).
    The merge order is defaults < parent < file < overrides.

    Parameters
    ----------
    folder : Path
        Where the files are. `aliases.toml` in it maps further names to stems.
    what : str
        What one entry is, for messages: "GPU", "kernel".
    kind : type[T]
        The msgspec struct that an entry must fit.
    defaults : str
        Key of the document, and name of the sub-folder, that gives the first layer; empty for none.
    """

    def __init__(self, folder: Path, what: str, kind: type[T], defaults: str = "") -> None:
        self.folder, self.what, self.kind, self.defaults = folder, what, kind, defaults
        self._loaded: dict[str, tuple[str, int, T]] = {}
        self._lent: dict[str, T] = {}

    def lend(self, name: str, entry: T) -> None:
        """Put an entry beside the files, under a name of its own, for as long as the process runs."""
        self._lent[name] = entry

    def names(self) -> list[str]:
        """The stems of all shipped files, sorted."""
        try:
            stems = [entry.name.removesuffix(".toml") for entry in os.scandir(self.folder) if entry.name.endswith(".toml")]
        except FileNotFoundError:
            return []
        return sorted(stem for stem in stems if stem not in RESERVED)

    def __contains__(self, name: str) -> bool:
        """Whether a file of this stem ships."""
        return name not in RESERVED and os.path.isfile(os.path.join(self.folder, f"{name}.toml"))

    def aliases(self) -> dict[str, str]:
        """Further names of shipped files: alias to stem."""
        path = self.folder / "aliases.toml"
        return {str(k): str(v) for k, v in _read(path).items()} if path.exists() else {}

    def resolve(self, name: str) -> Path:
        """The file behind a stem, an alias or a path to a TOML file."""
        if name.endswith(".toml") or "/" in name:
            if not Path(name).is_file():
                raise UserError(f"no such {self.what} file: {name}")
            return Path(name)
        stem = name.lower().replace("-", "_")
        path = self.folder / f"{stem}.toml"
        if stem not in RESERVED and path.is_file():
            return path
        aliases = self.aliases()
        for alias, target in aliases.items():
            if alias.replace("-", "_") == stem:
                return self.folder / f"{target}.toml"
        raise unknown_name(self.what, name, [*self.names(), *aliases])

    def load(self, name: str, overrides: Document | None = None) -> T:
        """The checked entry behind a name; `overrides` are laid over the file before it is checked.

        Raises
        ------
        UserError
            The name is unknown, the file is no TOML, or a value in it is missing, unknown or out of range.
        """
        if name in self._lent and not overrides:
            return self._lent[name]
        if overrides:
            return convert(layer(self.document(name), overrides), self.kind, f"{self.what} {name}")
        if name in self._loaded:
            path, written, entry = self._loaded[name]
            if _written_ns(path) == written:
                return entry
        path = str(self.resolve(name))
        written, entry = _written_ns(path), convert(self.document(name), self.kind, f"{self.what} {name}")
        self._loaded[name] = (path, written, entry)
        return entry

    def document(self, name: str) -> Document:
        """The merged document of an entry, before it is checked."""
        if name in self._lent:
            document: Document = msgspec.json.decode(msgspec.json.encode(self._lent[name]))
            return document
        path = self.resolve(name)
        document = self._inherited(path, seen=())
        if not self.defaults or self.defaults not in document:
            return document
        stem = str(document[self.defaults])
        defaults = self.folder / self.defaults / f"{stem}.toml"
        if not defaults.is_file():
            raise UserError(f"{path.name}: {unknown_name(self.defaults, stem, [p.stem for p in defaults.parent.glob('*.toml')])}")
        return layer(_read(defaults), document)

    def _inherited(self, path: Path, seen: tuple[Path, ...]) -> Document:
        """A file over its parents."""
        if path in seen:
            raise UserError(f"{path.name}: inherits from itself by way of {' -> '.join(p.stem for p in seen)}")
        document = _read(path)
        parent = document.pop("inherits", None)
        if parent is None:
            return document
        beside = path.parent / f"{parent}.toml"
        return layer(self._inherited(beside if beside.is_file() else self.resolve(str(parent)), (*seen, path)), document)


def _written_ns(path: str) -> int:
    """When a file was written; -1 where there is none any more."""
    try:
        return os.stat(path).st_mtime_ns
    except OSError:
        return -1


def convert(document: Document, kind: type[T], what: str, noun: str = "field") -> T:
    """A document as a checked struct; `noun` is what its keys are called.

    Raises
    ------
    UserError
        One line: `what`, the path of the value, what was got and what is allowed.
    """
    try:
        return msgspec.convert(document, kind, strict=True)
    except msgspec.ValidationError as error:
        raise UserError(f"{what}: {_plain(str(error), document, kind, noun)}") from None


@lru_cache(maxsize=256)
def _read_cached(path: Path, mtime_ns: int) -> Document:
    try:
        return tomllib.loads(path.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not a TOML file: {error}") from None


def _read(path: Path) -> Document:
    try:
        return deepcopy(_read_cached(path, path.stat().st_mtime_ns))
    except OSError as error:
        raise UserError(f"{path}: {error.strerror}") from None


def _plain(message: str, document: Document, kind: type[msgspec.Struct], noun: str) -> str:
    """A msgspec message with TOML paths, what was got, what is allowed, and the nearest name where one was misspelt."""
    found = re.search(r"`\$\.?([^`]*)`$", message)
    path = found.group(1) if found else ""
    text = re.sub(r" - at `\$[^`]*`$", "", message).replace("Object ", "").replace("required field", f"required {noun}")
    unknown = re.search(r"unknown field `([^`]+)`", text)
    if unknown:
        return str(unknown_name(f"{noun}{f' in [{path}]' if path else ''}", unknown.group(1), _types(kind, path)))
    value: Any = document
    for key in re.findall(r"[^.\[\]]+", path):
        if isinstance(value, dict):
            value = value.get(key)
        elif isinstance(value, (list, tuple)) and key.isdigit():
            value = value[int(key)]
        else:
            value = None
    if text.startswith("Invalid enum value"):
        parent, _, leaf = path.rpartition(".")
        allowed = get_args(_types(kind, parent).get(leaf))
        text = f"expected one of {', '.join(map(str, allowed))}" if allowed else text
    got = f" (got {value!r})" if value is not None and not isinstance(value, dict) else ""
    return f"{path}: {text}{got}" if path else text


def _types(kind: type[msgspec.Struct], path: str) -> dict[str, Any]:
    """Types of the fields of the struct at a dotted path below `kind`."""
    for key in filter(None, re.sub(r"\[[^\]]*\]", "", path).split(".")):
        types = {field.name: field.type for field in msgspec.structs.fields(kind)}
        inner = [t for t in (types.get(key), *get_args(types.get(key))) if isinstance(t, type)]
        kind = next((t for t in inner if issubclass(t, msgspec.Struct)), kind)
    return {field.name: field.type for field in msgspec.structs.fields(kind)}
