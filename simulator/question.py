"""What is asked of the simulator: pattern, problem and layout, from a published workload and what the user overrides."""

from __future__ import annotations

from typing import Any, NamedTuple

import msgspec

from ..facts import Document, UserError, convert
from ..workloads import AttentionProblem, Pattern, TokenLayout, make_layout, models
from ..workloads.families import Band, Listed
from ..workloads.qk import load_qk


class Question(NamedTuple):
    """A pattern on a problem."""

    pattern: Pattern
    problem: AttentionProblem
    layout: TokenLayout

    @property
    def tile_class(self) -> str:
        """The mask class that picks a kernel's tile: a window that reaches over all keys is none.

        >>> [question("sliding_window", seq_kv=n, params={"window": 4096}).tile_class for n in (4096, 4097)]
        ['dense', 'window']
        """
        family = self.pattern.family
        reaches = isinstance(family, Band) and isinstance(family.window, int) and family.window >= self.layout.tokens
        return "dense" if reaches and family.mask_class() == "window" else family.mask_class()


def question(
    pattern: str,
    *,
    model: str | None = None,
    shape: str | None = None,
    grid: tuple[int, ...] | None = None,
    text: int | None = None,
    frames: int | None = None,
    tokens_per_frame: int | None = None,
    seq_q: int | None = None,
    seq_kv: int | None = None,
    batch: int | None = None,
    q_heads: int | None = None,
    kv_heads: int | None = None,
    head_dim: int | None = None,
    head_dim_v: int | None = None,
    dtype: str | None = None,
    causal: bool | None = None,
    phase: str | None = None,
    params: Document | None = None,
    seed: int = 0,
) -> Question:
    """The pattern on its published workload, with every given value in place of the published one.

    Raises
    ------
    UserError
        A name or value is not usable, or two of them contradict each other.
    """
    given = dict(params or {})
    if causal is not None:
        if Pattern(pattern, given, published=True).system.family == "box":
            raise UserError("gna is causal by axis: give the parameter causal, as in --set causal=true,false,false")
        given["causal"] = causal
    chosen = Pattern(pattern, given, published=True, seed=seed)
    workload = chosen.system.workload
    if shape and not (model or workload.model):
        raise UserError(f"pattern {chosen.name} was published on no model: shape needs a model")
    if "qk" in given:
        sizes = load_qk(str(given["qk"])).sizes()
        head_dim = _same("head_dim", head_dim, sizes["head_dim"])
        # A file may hold some heads that stand for all of them.
        if q_heads is None:
            q_heads, kv_heads = sizes["q_heads"], kv_heads or sizes["kv_heads"]
        if grid is None and frames is None and chosen.default_layout().tokens != sizes["seq_kv"]:
            seq_q, seq_kv = _same("seq_q", seq_q, sizes["seq_q"]), _same("seq_kv", seq_kv, sizes["seq_kv"])
    source = models.load(model or workload.model) if model or shape else None
    phase = phase or workload.phase
    if phase == "decode" and grid is None and frames is None:
        seq_q = (workload.seq_q or chosen.items) if seq_q is None else seq_q
        seq_kv = (source.layout(shape) if source else chosen.default_layout()).tokens if seq_kv is None else seq_kv
    layout = make_layout(grid=grid, text=text, frames=frames, tokens_per_frame=tokens_per_frame, seq_q=seq_q, seq_kv=seq_kv)
    # A mask file has no text of its own: all its tokens are those of the grid that is given.
    if layout is None or (text is None and len(layout.grid) > 1 and not isinstance(chosen.family, Listed)):
        usual = source.layout(shape) if source else chosen.default_layout()
        if layout is not None:
            layout = msgspec.structs.replace(layout, text=usual.text)
        else:
            layout = usual if text is None else convert({"grid": usual.grid, "text": text}, TokenLayout, "layout")
    base = source.problem(shape, layout) if source else workload.problem()
    heads = q_heads if q_heads is not None else base.q_heads
    shared = base.kv_heads if base.kv_heads != base.q_heads or q_heads is None else heads
    width = head_dim if head_dim is not None else base.head_dim
    document: dict[str, Any] = {
        "batch": batch if batch is not None else base.batch,
        "q_heads": heads,
        "kv_heads": kv_heads if kv_heads is not None else shared,
        "head_dim": width,
        "head_dim_v": head_dim_v if head_dim_v is not None else (width if head_dim is not None else base.head_dim_v),
        "seq_q": layout.query_tokens,
        "seq_kv": layout.tokens,
        "dtype": dtype or base.dtype,
        "phase": phase or base.phase,
        "causal": bool(chosen.family.without_pattern().causal),
    }
    if "qk" in given:
        for name in ("seq_q", "seq_kv"):
            _same(name, document[name], sizes[name])
    if kv_heads is not None and kv_heads < 1:
        raise UserError(f"kv_heads must be at least 1, got {kv_heads}")
    return Question(chosen, convert(document, AttentionProblem, "problem"), layout)


def _same(name: str, given: int | None, of_file: int) -> int:
    """A number that the file of Q and K fixes."""
    if given is not None and given != of_file:
        raise UserError(f"the file of Q and K has {name}={of_file}, and the call {name}={given}")
    return of_file


def problem_fields(asked: Question) -> dict[str, Any]:
    """The problem as it appears in an answer."""
    fields: dict[str, Any] = msgspec.to_builtins(asked.problem)
    return {**fields, "grid": list(asked.layout.grid), "text": asked.layout.text}
