"""sources: where measurements come from, one adapter a module.

published       the table of published runs that ships with the package
aiconfigurator  measured tables of the package aiconfigurator-core
measured        files of `simattn measure`, ours and a user's
profiler        profiles of torch.profiler and ncu
"""

from .aiconfigurator import Table, read_table, tables
from .measured import own_runs, read_runs
from .profiler import is_profile, read_profile
from .published import Timed, kernel_for, pattern_for, published_runs, timed_as

__all__ = [
    "Table",
    "Timed",
    "is_profile",
    "kernel_for",
    "own_runs",
    "pattern_for",
    "published_runs",
    "read_profile",
    "read_runs",
    "read_table",
    "tables",
    "timed_as",
]
