"""bench: measures kernels on the GPU at hand, in rows that can be simulated again.

case       Case: one call to be timed
suites     what is measured, as data (suites.toml)
masks      block masks that are measured, each from its parameters
machine    the GPU at hand, or the interpreter
nvml       clock and power while it works
runners/   how each kind of case is run
work       a case made ready, its inputs in copies that outgrow L2
check      is the result right?
timer      how long does it take?
row, store one line a measurement, written as soon as it is known
predicted  what the simulator says of a case
plan       what a run will do and how long it will take
run        the run
blind      predict first, then measure

Nothing here needs torch but what runs a case.
"""

from .case import SUITES, Case
from .plan import Planned, plan
from .store import Store
from .suites import cases

__all__ = ["SUITES", "Case", "Planned", "Store", "cases", "plan"]
