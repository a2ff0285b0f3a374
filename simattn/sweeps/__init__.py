"""sweep: one prediction for every point of a grid, of a random sample, or of a search; on all cores or on a cluster.

Points are predicted in chunks, and every finished chunk is a file of its own until all are there. So a sweep that was killed goes
on where it was, and ends with the rows that it would have had.

spec      what is asked: patterns, GPUs, kernels, and what varies
space     the points of a spec, by number
row       a point as a row of the answer: columns with their types and units
search    points that an optimizer chooses by the rows so far
store     the files of a sweep on its way, and the table at its end
workers   who predicts: this process, others on this machine, or a Dask cluster
run       sweep: all of it together
"""

from .run import Sweep, sweep
from .spec import Range, SweepSpec

__all__ = ["Range", "Sweep", "SweepSpec", "sweep"]
