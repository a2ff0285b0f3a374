"""How an explanation writes numbers."""

from __future__ import annotations


def ms(value: float) -> str:
    """A time, in microseconds where it is less than a millisecond."""
    return f"{value * 1e3:,.1f} us" if value < 1 else f"{value:,.2f} ms" if value < 100 else f"{value:,.1f} ms"


def percent(share: float) -> str:
    """A share, with a decimal where it is small."""
    return f"{100 * share:.1f} %" if 0.0005 <= share < 0.1 else f"{100 * share:.0f} %"
