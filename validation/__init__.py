"""validation: how far a prediction can be trusted.

measurement  Measurement: a run that someone timed
sources/     where measurements come from
asked        what a measured run asks of the simulator
compare      predictions against measurements, row by row, with naive estimators
roofline     the usual estimate, fitted to measured runs
scores       errors by group
noise        how far measured runs contradict each other
difference   old predictions against new ones
protocol     what may be fitted, what must be predicted, and what has to be reached
fit          the values of constants at which measured calls are predicted best
calibrate    constants of a kernel on a GPU, with their scores and bands
scoreboard   every run that the protocol names, by class
bars, causes, page, scorings  what the scoreboard reached, why it misses, its page and its log
calibration_page  the page of all calibrations
claims/      what published systems report for themselves, asked of the simulator
bench/       measures kernels on the GPU at hand
"""

from .calibrate import calibrate, calibrate_all, write_calibration
from .calibration_page import calibration_page, shipped_calibrations
from .compare import Row, compare, is_dense
from .difference import Difference, difference
from .measurement import Measurement, read_measurements
from .page import scoreboard_page
from .protocol import role
from .scoreboard import PARTS, Board, scoreboard
from .scores import FORWARD, GroupScore, group_scores
from .scorings import log_scoring
from .sources import published_runs, read_runs

__all__ = [
    "FORWARD",
    "PARTS",
    "Board",
    "Difference",
    "GroupScore",
    "Measurement",
    "Row",
    "calibrate",
    "calibrate_all",
    "calibration_page",
    "compare",
    "difference",
    "group_scores",
    "is_dense",
    "log_scoring",
    "published_runs",
    "read_measurements",
    "read_runs",
    "role",
    "scoreboard",
    "scoreboard_page",
    "shipped_calibrations",
    "write_calibration",
]
