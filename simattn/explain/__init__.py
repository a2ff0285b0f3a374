"""explain: why a sparse call is only so much faster than the dense one, and whether a measured time is a limit or a bug.

The waterfalls of the two calls stand side by side. At each stage the speedup is that of two machines with the same limits, so the
factor from one stage to the next is what that limit takes from the speedup, or gives to it; all factors multiply to the speedup.

explanation  the answer
stages       both waterfalls side by side, and the cause at each stage
verdict      which limit takes most, and what would help
judge        a measured time, and the mistakes and circumstances that may be behind it
what_if      the same call with something changed
case         Case: a call, with everything that can be changed about it
words        how numbers are written
"""

from .case import changed_kernel
from .explanation import Explanation, explain
from .judge import Circumstance, Measured
from .stages import StageCause
from .what_if import LEVERS, WhatIf

__all__ = ["LEVERS", "Circumstance", "Explanation", "Measured", "StageCause", "WhatIf", "changed_kernel", "explain"]
