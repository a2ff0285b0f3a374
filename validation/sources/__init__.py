"""sources: where measurements come from, one adapter a module.

published       the table of published runs that ships with the package
aiconfigurator  measured tables of the package aiconfigurator-core
"""

from .aiconfigurator import Table, read_table, tables
from .published import Timed, kernel_for, pattern_for, published_runs, timed_as

__all__ = ["Table", "Timed", "kernel_for", "pattern_for", "published_runs", "read_table", "tables", "timed_as"]
