"""System: a published method as data. Family, parameters, the kernels beside the attention, workload, policy and claims."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct

from ..facts import Document, Provenance, Shelf, UserError
from .expressions import Formula, check
from .families import family_type
from .layout import TokenLayout
from .model import models
from .ops import GemmDtype
from .problem import AttentionProblem, Dtype, Phase

Count = Annotated[int, Meta(ge=0, le=2**40)]
Style = Literal["one_kernel", "split_text", "tile_permuted"]
"""How a system runs its pattern.

`one_kernel`: one attention kernel. `split_text`: text columns and rows by dense kernels, merged into the video part.
`tile_permuted`: tokens are reordered into tiles before the kernel and back after it; text queries by a dense kernel.
"""

PROBLEM_NAMES = ("B", "N", "M", "d", "dv", "Hq", "Hk", "G", "e", "text", "frames", "axis0", "axis1", "axis2")
"""Numbers of the call in a formula: items, queries, keys, widths, heads, query heads of a K/V head, bytes of an element, grid."""

SCHEDULE_NAMES = ("visited", "pairs", "rows", "q_tile", "kv_tile")
"""Numbers of the main attention, over all heads and items: visited tiles, live pairs, owner tiles; and its tile."""


class _Table(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One table of an entry."""


class Workload(_Table, frozen=True, kw_only=True):
    """The problem on which a system was published: a model in one of its settings, or numbers of its own (which go first)."""

    model: str = ""
    shape: str | None = None
    seq: Count = 0
    seq_q: Count = 0
    """Queries, where they are fewer than the keys."""
    grid: tuple[Count, ...] = ()
    text: Count | None = None
    batch: Count = 0
    q_heads: Count = 0
    kv_heads: Count = 0
    head_dim: Count = 0
    head_dim_v: Count = 0
    dtype: Dtype | None = None
    phase: Phase | None = None
    params: Document = {}
    """Parameters of the published setting, used as one unless the user gives parameters that the family requires."""

    def __post_init__(self) -> None:
        if not self.model and not (self.q_heads and self.head_dim and (self.seq or self.grid)):
            raise UserError("a workload names a model, or gives q_heads, head_dim, and seq or grid")
        if self.seq and self.grid:
            raise UserError("a workload has either seq or grid")

    def layout(self) -> TokenLayout:
        """Its tokens."""
        if self.grid:
            return TokenLayout(grid=self.grid, text=self.text or 0)
        if self.seq:
            return TokenLayout(grid=(self.seq,), queries=self.seq_q if self.seq_q != self.seq else 0)
        layout = models.load(self.model).layout(self.shape)
        return layout if self.text is None else msgspec.structs.replace(layout, text=self.text)

    def problem(self) -> AttentionProblem:
        """Its shapes and types; lengths are those of `layout`."""
        layout = self.layout()
        own: dict[str, Any] = {
            "batch": self.batch,
            "q_heads": self.q_heads,
            "kv_heads": self.kv_heads or self.q_heads,
            "head_dim": self.head_dim,
            "head_dim_v": self.head_dim_v or self.head_dim,
            "dtype": self.dtype,
            "phase": self.phase,
            "seq_q": layout.query_tokens,
            "seq_kv": layout.tokens,
        }
        given = {name: value for name, value in own.items() if value}
        if not self.model:
            return AttentionProblem(**given)
        return msgspec.structs.replace(models.load(self.model).problem(self.shape), **given)


class Part(_Table, frozen=True, kw_only=True):
    """A further attention kernel of the same call."""

    name: str
    family: str
    params: Document = {}
    kernel: str | None = None
    launches: Formula = 1


class Side(_Table, frozen=True, kw_only=True):
    """A kernel, or work of the host, beside the attention kernels."""

    name: str
    when: Literal["before", "after"] = "before"
    kind: Literal["stream", "permute", "gather", "gemm", "sort", "host"]
    bytes: Formula = 0
    """Read and written, together; of a GEMM see `ops.Gemm`."""
    flops: Formula = 0
    shape: tuple[Formula, Formula, Formula] | None = None
    """Rows, columns and depth of one product of a GEMM."""
    copies: Formula = 1
    """Products of that shape."""
    passes: Formula = 2
    """Of a sort, over its bytes."""
    seconds: Formula = 0
    """Of the host."""
    launches: Formula = 1
    dtype: GemmDtype = "bf16"
    every: Annotated[float, Meta(ge=1)] = 1.0
    """Calls that share one run of it."""

    def __post_init__(self) -> None:
        needed = {"gemm": ("flops", "shape"), "host": ("seconds",)}.get(self.kind, ("bytes",))
        if not any(getattr(self, field) for field in needed):
            raise UserError(f"{self.name}: {self.kind} needs {' or '.join(needed)}")
        if self.shape and self.flops:
            raise UserError(f"{self.name}: give either flops or shape")

    def formulas(self) -> dict[str, Formula]:
        """What it costs, by field: those of its kind that are set."""
        wanted = {"gemm": ("flops", "bytes", "launches"), "sort": ("bytes", "passes", "launches"), "host": ("seconds",)}
        named = {field: getattr(self, field) for field in wanted.get(self.kind, ("bytes", "launches"))}
        if self.shape:
            named |= dict(zip(("m", "n", "k"), self.shape, strict=True)) | {"copies": self.copies}
            del named["flops"]
        return named


class Policy(_Table, frozen=True, kw_only=True):
    """In which layers, steps and heads the method is used: what a whole model needs to know."""

    steps: Count = 0
    """Denoising steps of the published setting."""
    dense_steps: Count | tuple[Count, ...] = 0
    """Steps that run dense: the first ones, or a list."""
    dense_layers: tuple[int, ...] = ()
    """Layers that run dense; negative ones count from the last."""
    select_layers: tuple[int, ...] = ()
    """Layers that select, where others reuse what they found."""
    refresh_every: Count = 0
    """Steps (or decoded tokens) that share one selection."""
    heads: str = ""
    """How heads differ, in words."""
    note: str = ""


class Claim(_Table, frozen=True, kw_only=True):
    """What its authors say."""

    metric: str
    value: float
    setting: str
    source: str
    note: str = ""


class System(_Table, frozen=True, kw_only=True):
    """An entry of the systems data: a published method, or a baseline."""

    name: str
    title: str
    family: str
    summary: str
    formula: str = ""
    """The rule of the pattern in words: which keys a query sees."""
    paper: str = ""
    tier: Literal[0, 1, 2] = 0
    """1: a system that is predicted with all that runs beside it; 2: its schedule is that of another entry; 0: a baseline."""
    params: Document = {}
    required: tuple[str, ...] = ()
    """Parameters without which the name means nothing, beside those that the family requires."""
    fixed: tuple[str, ...] = ()
    """Parameters that are the pattern itself, and so are nobody's to give."""
    style: Style = "one_kernel"
    kernel: str | None = None
    """Kernel that the system's code uses, where it runs on the GPU; by default the usual one."""
    launches: Formula = 1
    """Launches of the main attention."""
    parts: tuple[Part, ...] = ()
    side: tuple[Side, ...] = ()
    select: tuple[Side, ...] = ()
    """What a selecting layer of a decode step runs beside full attention, where other layers reuse what it found."""
    workload: Workload
    policy: Policy = Policy()
    claims: tuple[Claim, ...] = ()
    exactness: Literal["exact", "approximate"] = "exact"
    why: str = ""
    """Why it is approximate."""
    meta: dict[str, Provenance]

    def __post_init__(self) -> None:
        if self.exactness == "approximate" and not self.why:
            raise UserError("an approximate entry says why")
        names = [part.name for part in self.parts]
        if len({*names, self.name}) <= len(names):
            raise UserError(f"parts need names of their own, got {', '.join(names)}")
        own = [field.name for field in msgspec.structs.fields(family_type(self.family))]
        for part in self.parts:
            own += [f"{part.name}_{field.name}" for field in msgspec.structs.fields(family_type(part.family))]
        for launches in (self.launches, *(part.launches for part in self.parts)):
            check(launches, (*PROBLEM_NAMES, *own))
        for side in self.side:
            for formula in side.formulas().values():
                check(formula, (*PROBLEM_NAMES, *SCHEDULE_NAMES, *own))
        for side in self.select:
            for formula in side.formulas().values():
                check(formula, (*PROBLEM_NAMES, *own))
        if self.select and not self.policy.select_layers:
            raise UserError(f"{self.name} says what a selecting layer runs, and has none")


systems: Shelf[System] = Shelf(Path(__file__).parent / "systems", "pattern", System)
"""Every pattern that ships with the package."""
