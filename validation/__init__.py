"""validation: how far a prediction can be trusted.

measurement  Measurement: a run that someone timed
sources/     where measurements come from
compare      predictions against measurements, by row and by group, with naive estimators
page         the accuracy page of the documentation
protocol     what may be fitted, and what must be predicted
calibrate    a few constants of a kernel on a GPU, fitted to what may be fitted
calibration_page  the page of all calibrations
bench/       measures kernels on the GPU at hand
"""

from .calibrate import calibrate
from .calibration_page import calibration_page, shipped_calibrations
from .compare import Row, compare
from .measurement import Measurement, read_measurements
from .protocol import role
from .sources import published_runs

__all__ = [
    "Measurement",
    "Row",
    "calibrate",
    "calibration_page",
    "compare",
    "published_runs",
    "read_measurements",
    "role",
    "shipped_calibrations",
]
