"""optimize: which tiles, strides, windows, blocks and token orders to use.

space          what is looked at; neighborhoods: grids in closed form
search         what closed forms cannot rule out is simulated
candidate      merits, and the front of those that nothing beats
call           what stays the same, and how one configuration is run
"""

from .candidate import Configuration, Optimum
from .run import optimize

__all__ = ["Configuration", "Optimum", "optimize"]
