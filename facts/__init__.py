"""facts: how the project keeps what it knows.

The floor that every room stands on. GPUs, kernels, models and published systems are TOML files, each number with its
source; this package names them, merges them, checks them and reports what is wrong with them in one line.

    errors       UserError: what the user gave cannot be used, and the nearest thing that could
    provenance   where a number comes from
    same         a value as a key of a cache
    shelf        a folder of TOML files of one kind: names, aliases, inheritance, checked loading
"""

from .errors import UserError, unknown_name
from .provenance import Provenance
from .same import Same
from .shelf import Document, Shelf, convert, merge

__all__ = ["Document", "Provenance", "Same", "Shelf", "UserError", "convert", "merge", "unknown_name"]
