"""workloads: what is computed, and nothing about where or how fast.

problem    AttentionProblem: shapes and types of one call
layout     TokenLayout: the grid behind a sequence; Tiling: how a kernel cuts it
orders     token orders: permutations of a grid; reorder: what they make of a schedule
runs       runs of keys, and the sweep that makes them disjoint
counting   visits of each row, by kind
schedule   TileSchedule: the work that one attention kernel is handed
families/  parametric generators of schedules
blocks     schedules from lists of kept blocks, for any tile; heads: heads that differ, as one schedule
selection  rules on scores: top-k, mass, thresholds
scores     masks drawn from published statistics
estimators/  masks from real queries and keys, by the systems' own estimates
visits     the kv tiles of every row, one by one
model      published models (models/*.toml); hf_config: those of a config.json
layers     what a layer of a model runs beside its self-attention
system     published methods (systems/*.toml): family, parameters, kernels beside, workload, claims
expressions  formulas of bytes, FLOPs and launches in these files
ops        what each kernel of a plan has to do
plan       Plan: the ops that a call really runs
remembered  schedules that were drawn at random, kept for the next kernel or GPU
pattern    patterns by name: a system with parameters
related    published attention that runs as another entry does (related.toml)
qk         real queries and keys from a file
"""

from .bsr import from_bsr
from .layout import Tiling, TokenLayout
from .model import Model, models
from .ops import Attention, Gemm, Host, Memory, Op, Plan, SideOp, Sort
from .pattern import Pattern, make_layout, schedule
from .plan import TilingOf, cleared_output, kv_cache_write
from .problem import AttentionProblem
from .related import Related, related
from .schedule import BlockGrid, Buffer, Counts, Group, Kind, TileSchedule
from .system import Claim, Part, Policy, Side, System, Workload, systems
from .visits import Visits, visits

__all__ = [
    "Attention",
    "AttentionProblem",
    "BlockGrid",
    "Buffer",
    "Claim",
    "Counts",
    "Gemm",
    "Group",
    "Host",
    "Kind",
    "Memory",
    "Model",
    "Op",
    "Part",
    "Pattern",
    "Plan",
    "Policy",
    "Related",
    "Side",
    "SideOp",
    "Sort",
    "System",
    "TileSchedule",
    "Tiling",
    "TilingOf",
    "TokenLayout",
    "Visits",
    "Workload",
    "cleared_output",
    "from_bsr",
    "kv_cache_write",
    "make_layout",
    "models",
    "related",
    "schedule",
    "systems",
    "visits",
]
