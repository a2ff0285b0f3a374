"""Same: a value as a key of a cache, which is that very value and no equal one."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

T = TypeVar("T")


class Same(Generic[T]):
    """An immutable value that cannot be hashed, or only slowly, as an argument of a cached function.

    Two are equal if they hold the same object. A cache that has one as its key keeps the object, so that no other can take its
    place in memory.

    Examples
    --------
    >>> from functools import lru_cache
    >>> total = lru_cache(lambda numbers: sum(numbers.value))
    >>> a = [1, 2, 3]
    >>> total(Same(a)), total(Same(a)), total.cache_info().hits
    (6, 6, 1)
    """

    __slots__ = ("value",)

    def __init__(self, value: T) -> None:
        self.value = value

    def __hash__(self) -> int:
        return id(self.value)

    def __eq__(self, other: Any) -> bool:
        return isinstance(other, Same) and self.value is other.value
