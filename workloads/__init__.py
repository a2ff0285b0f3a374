"""workloads: what is computed, and nothing about where or how fast.

problem    AttentionProblem: shapes and types of one call
layout     TokenLayout: the grid behind a sequence; Tiling: how a kernel cuts it
runs       runs of keys, and the sweep that makes them disjoint
schedule   TileSchedule: the work that one attention kernel is handed
families/  parametric generators of schedules
visits     the kv tiles of every row, one by one
plan       Plan: the ops that a call really runs
pattern    patterns by name (systems/*.toml): family, parameters, published workload
model      published models (models/*.toml)
"""

from .bsr import from_bsr
from .layout import Tiling, TokenLayout
from .model import Model, models
from .pattern import Pattern, System, make_layout, schedule, systems
from .plan import Attention, Memory, Op, Plan, kv_cache_write
from .problem import AttentionProblem
from .schedule import BlockGrid, Buffer, Counts, Group, Kind, TileSchedule
from .visits import Visits, visits

__all__ = [
    "Attention",
    "AttentionProblem",
    "BlockGrid",
    "Buffer",
    "Counts",
    "Group",
    "Kind",
    "Memory",
    "Model",
    "Op",
    "Pattern",
    "Plan",
    "System",
    "TileSchedule",
    "Tiling",
    "TokenLayout",
    "Visits",
    "from_bsr",
    "kv_cache_write",
    "make_layout",
    "models",
    "schedule",
    "systems",
    "visits",
]
