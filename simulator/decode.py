"""Decoding: what each layer of a step runs, and how steps grow with the context.

Layers have roles. A full layer reads all keys; a selecting one does too and notes which of them matter; a sparse layer reads
those, found by itself or by the last selecting layer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal, NamedTuple, cast

import msgspec
import numpy as np
from msgspec import Struct

from ..facts import UserError
from ..hwspecs import GpuSpec, gpus
from ..workloads import Attention, Model, TokenLayout, models
from ..workloads.layers import head_gemm, layer_ops, weight_bytes
from ..workloads.plan import selection
from ..workloads.system import Policy
from .baseline import fastest_dense
from .choice import choose_kernel
from .graph import TaskGraph
from .predict import simulate
from .question import Question, question
from .setting import Setting
from .side import side_seconds
from .system import run

SCHEMA = "simattn.decode/1"

GIB = 2**30

POINTS = 5
"""Contexts at which a growing loop is simulated; between them the time of a step is taken as a line."""

Role = Literal["full", "select", "sparse"]


def roles(policy: Policy, layers: int) -> tuple[Role, ...]:
    """The role of every layer.

    Raises
    ------
    UserError
        The policy names a layer that the model does not have.

    Examples
    --------
    >>> from collections import Counter
    >>> from simattn.workloads import systems
    >>> Counter(roles(systems.load("tidal").policy, 32))
    Counter({'sparse': 28, 'full': 2, 'select': 2})
    """
    found: list[Role] = ["sparse"] * layers
    kinds: tuple[tuple[Role, tuple[int, ...]], ...] = (("full", policy.dense_layers), ("select", policy.select_layers))
    for role, numbers in kinds:
        for number in numbers:
            if not -layers <= number < layers:
                raise UserError(f"the system has a {role} layer {number}, and the model {layers} layers")
            found[number] = role
    return tuple(found)


class Layer(NamedTuple):
    """Seconds of one layer of a decode step on the GPU."""

    before: float
    """Projections of the new token."""
    select: float
    """Kernels beside the attention."""
    attention: float
    after: float


class Decoder(NamedTuple):
    """What stays the same from step to step."""

    spec: GpuSpec
    named: str
    """The model as it was asked for: a name, or a `config.json`."""
    model: Model
    pattern: str
    setting: Setting
    options: dict[str, Any]

    def asked(self, context: int, batch: int) -> Question:
        """One decode step of a batch."""
        call = {"batch": batch, "seq_q": 1, "seq_kv": context, "phase": "decode"}
        return question(self.pattern, model=self.named, **{**self.options, **call})

    def roles(self) -> tuple[Role, ...]:
        return roles(self.asked(1, 1).pattern.system.policy, self.model.layers)

    def layer(self, role: Role, context: int, batch: int) -> Layer:
        """One layer of a step."""
        asked, clock = self.asked(context, batch), self.setting.clock
        if role == "sparse":
            found = simulate(asked, self.spec, setting=self.setting)
            attention, beside = found.stages["launch"], found.stages["side"] - found.stages["launch"]
        else:
            attention, beside = fastest_dense(asked, self.spec, self.setting).seconds, 0.0
            if role == "select":
                chosen = selection(asked.pattern.system, asked.pattern.family, asked.problem, asked.layout)
                beside = sum(side_seconds(self.spec, op, None, clock) for op in chosen)
        tiling = choose_kernel(self.spec, asked.problem, "dense").tiling
        ops = layer_ops(self.model, TokenLayout(grid=(context,), queries=1), tiling, batch=batch)
        first, *others = (side_seconds(self.spec, op, None, clock) for op in ops if not isinstance(op, Attention))
        return Layer(first, beside, attention, sum(others))

    def logits(self, batch: int) -> float:
        """Seconds of what comes after the last layer."""
        product = head_gemm(self.model, batch=batch)
        return side_seconds(self.spec, product, None, self.setting.clock) if product else 0.0

    def budget(self, context: int) -> int:
        """Tokens that a query of a sparse layer attends to."""
        asked = self.asked(context, 1)
        tiling = choose_kernel(self.spec, asked.problem, asked.pattern.family.mask_class()).tiling
        plan = asked.pattern.plan(asked.problem, asked.layout, lambda mask_class, kernel: tiling)
        pairs = sum(op.schedule.pairs for op in plan if isinstance(op, Attention))
        return max(1, round(pairs / asked.problem.q_heads))

    def token_bytes(self) -> int:
        """Keys and values of one token in one layer."""
        problem = self.asked(1, 1).problem
        return self.model.kv_heads * (problem.head_dim + problem.head_dim_v) * problem.element_bytes

    def memory_gib(self) -> float:
        """GiB that the weights of the model leave."""
        if self.spec.mem.dram.capacity_gib is None:
            raise UserError(f"the memory of GPU {self.spec.name} is not known: give kv_memory_gib")
        has, weights = self.spec.mem.dram.capacity_gib, weight_bytes(self.model) / GIB
        if has <= weights:
            raise UserError(f"the weights of {self.model.name} need {weights:.0f} GiB, {self.spec.name} has {has:g}")
        return has - weights


def decode_step(
    layers: Sequence[Layer], logits: float, *, fetch: Sequence[float] = (), prefetch: bool = False, host: float = 0.0
) -> TaskGraph:
    """The task graph of one decode step.

    Parameters
    ----------
    layers : sequence of Layer
        In order.
    logits : float
        Seconds of what comes after the last layer.
    fetch : sequence of float
        Seconds that the host link needs for what each layer misses; nothing by default.
    prefetch : bool
        A layer's blocks are chosen one layer ahead.
    host : float
        Seconds of the host before each layer, while the GPU waits: an eager framework that synchronises. None in a CUDA graph.

    Examples
    --------
    >>> layers = [Layer(1e-5, 1e-5, 2e-5, 4e-5)] * 10
    >>> [round(run(decode_step(layers, 0.0, fetch=[5e-5] * 10, prefetch=early)).seconds * 1e6) for early in (False, True)]
    [1300, 850]
    """
    graph = TaskGraph()
    chosen: int | None = None
    done: list[int] = []
    for number, layer in enumerate(layers):
        if host:
            done = [graph.add(f"layer {number} launches", "host", host, done)]
        graph.add(f"layer {number} projections", "gpu", layer.before, done)
        selected = graph.add(f"layer {number} selection", "gpu", layer.select)
        fetched = []
        if fetch and fetch[number]:
            known = chosen if prefetch and chosen is not None else selected
            fetched = [graph.add(f"layer {number} blocks", "from host", fetch[number], [known])]
        graph.add(f"layer {number} attention", "gpu", layer.attention, fetched)
        done = [graph.add(f"layer {number} feed-forward", "gpu", layer.after)]
        chosen = selected
    graph.add("logits", "gpu", logits)
    return graph


class Step(Struct, frozen=True, kw_only=True):
    """One step at one context, and the same with dense attention in all layers.

    Attributes
    ----------
    attention_ms : float
        Of the step: attention and the kernels beside it.
    """

    context: int
    ms: float
    dense_ms: float
    attention_ms: float
    dense_attention_ms: float


class Loop(Struct, frozen=True, kw_only=True):
    """Decoding of so many tokens by a batch of sequences.

    Attributes
    ----------
    budget : int
        Tokens that a query of a sparse layer attends to in the last step.
    roles : dict
        How many layers have each role.
    fits : int or None
        Sequences whose keys and values the GPU holds at the end; None where its memory is not known.
    seconds, dense_seconds : float
        Of all steps.
    steps : tuple of Step
        First and last step, and some between.
    """

    gpu: str
    model: str
    pattern: str
    batch: int
    context: int
    tokens: int
    budget: int
    roles: dict[Role, int]
    fits: int | None
    seconds: float
    dense_seconds: float
    tokens_per_s: float
    dense_tokens_per_s: float
    speedup: float
    steps: tuple[Step, ...]
    schema: str = SCHEMA

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `simattn decode --json` prints them."""
        plain = cast(dict[str, Any], msgspec.to_builtins(self))
        return {"schema": plain.pop("schema"), **plain}


def decode(
    model: str,
    pattern: str,
    hw: str | GpuSpec = "h100",
    *,
    context: int,
    tokens: int = 1,
    batch: int = 1,
    host_us: float = 0.0,
    setting: Setting = Setting(),  # noqa: B008 (immutable)
    **options: Any,
) -> Loop:
    """Simulate a loop of decode steps over a growing context, beside the same with dense attention.

    Parameters
    ----------
    model, pattern, hw, options
        As in `predict`. The policy of the pattern's system says which layers are full, selecting or sparse.
    context : int
        Tokens of every sequence before the first step.
    tokens : int
        Tokens that every sequence gets.
    batch : int
        Sequences.
    host_us : float
        Microseconds of the host before each layer, while the GPU waits; none in a CUDA graph.

    Raises
    ------
    UserError
        A name or number is not usable.

    Examples
    --------
    >>> loop = decode("llama-3.1-8b", "tidal", "a100", context=65536, tokens=1024)
    >>> loop.roles, 1 < loop.speedup < 3
    ({'full': 2, 'select': 2, 'sparse': 28}, True)
    """
    spec = gpus.load(hw) if isinstance(hw, str) else hw
    for name, value in (("context", context), ("tokens", tokens), ("batch", batch)):
        if value < 1:
            raise UserError(f"{name} must be at least 1, got {value}")
    if not 0 <= host_us < 1e9:
        raise UserError(f"host_us must be at least 0, got {host_us}")
    decoder = Decoder(spec, model, models.load(model), pattern, setting, options)
    kinds, last = decoder.roles(), context + tokens - 1
    contexts = sorted({round(n) for n in np.linspace(context, last, POINTS)})
    steps = tuple(_step(decoder, kinds, at, batch, host_us * 1e-6) for at in contexts)
    each = np.arange(context, last + 1)
    seconds, dense = (
        float(np.interp(each, contexts, times).sum()) * 1e-3 for times in ([s.ms for s in steps], [s.dense_ms for s in steps])
    )
    known = spec.mem.dram.capacity_gib is not None
    sequence = decoder.token_bytes() * decoder.model.layers * (context + tokens)
    return Loop(
        gpu=spec.name,
        model=decoder.model.name,
        pattern=decoder.asked(context, 1).pattern.name,
        batch=batch,
        context=context,
        tokens=tokens,
        budget=decoder.budget(last),
        roles={role: kinds.count(role) for role in ("full", "select", "sparse") if role in kinds},
        fits=int(decoder.memory_gib() * GIB // sequence) if known else None,
        seconds=seconds,
        dense_seconds=dense,
        tokens_per_s=batch * tokens / seconds,
        dense_tokens_per_s=batch * tokens / dense,
        speedup=dense / seconds,
        steps=steps,
    )


def _step(decoder: Decoder, kinds: Sequence[Role], context: int, batch: int, host: float) -> Step:
    full = decoder.layer("full", context, batch)
    made = {role: decoder.layer(role, context, batch) for role in set(kinds) - {"full"}}
    logits, own, dense = decoder.logits(batch), [made.get(role, full) for role in kinds], [full] * len(kinds)
    return Step(
        context=context,
        ms=run(decode_step(own, logits, host=host)).seconds * 1e3,
        dense_ms=run(decode_step(dense, logits, host=host)).seconds * 1e3,
        attention_ms=sum(layer.select + layer.attention for layer in own) * 1e3,
        dense_attention_ms=sum(layer.attention for layer in dense) * 1e3,
    )
