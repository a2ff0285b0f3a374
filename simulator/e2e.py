"""End to end: a whole model with a sparse attention, and what of the attention's speedup is left of it."""

from __future__ import annotations

from typing import Any, cast

import msgspec
from msgspec import Struct

from ..facts import UserError
from ..hwspecs import GpuSpec
from ..hwspecs import gpus as gpu_shelf
from ..workloads import Attention, Gemm, Model, Plan, Tiling, models
from ..workloads.layers import ALL_REDUCES, ELEMENT_BYTES, head_gemm, layer_ops, share_of
from ..workloads.system import Policy
from .baseline import dense_schedule, fastest_dense
from .choice import choose_kernel
from .clock import SETTLED
from .collectives import peers
from .graph import TaskGraph
from .predict import simulate
from .question import Question, problem_fields, question
from .setting import Setting
from .side import side_seconds
from .waterfall import attention_time

SCHEMA = "simattn.e2e/1"


class Part(Struct, frozen=True, kw_only=True):
    """What one kind of work takes, over all layers and steps."""

    name: str
    dense_ms: float
    latency_ms: float
    dense_pflops: float = 0.0
    """Useful FLOPs of the dense run: of live pairs, or of a product."""


class Counts(Struct, frozen=True, kw_only=True):
    """How often attention is called: in each layer of each step (1 for a prefill) and of each pass of a step."""

    layers: int
    steps: int
    passes: int
    dense_layers: int
    dense_steps: int

    def calls(self) -> int:
        """All calls of self-attention."""
        return self.layers * self.steps * self.passes

    def sparse_calls(self) -> int:
        """Those that are sparse: in no dense step and in no dense layer."""
        return (self.layers - self.dense_layers) * (self.steps - self.dense_steps) * self.passes


class EndToEnd(Struct, frozen=True, kw_only=True):
    """A model's run with a sparse attention, and the same with dense attention.

    Attributes
    ----------
    counts : Counts
        Layers and steps, and how many of them keep dense attention.
    attention_share : float
        Share of the dense run that is self-attention.
    bound : float
        Speedup if the sparse calls took no time at all.
    pflops, dense_pflops : float
        Useful FLOPs: of live pairs and of all products.
    parts : tuple of Part
        Self-attention (with its side kernels), and the rest of the layers op by op.
    share_given : bool
        The rest was not simulated but follows from a share of attention that was given.
    gpus : int
        GPUs over whose number heads and feed-forward are divided.
    """

    gpu: str
    model: str
    pattern: str
    problem: dict[str, Any]
    kernel: str
    dense_kernel: str
    counts: Counts
    latency_ms: float
    dense_latency_ms: float
    speedup: float
    attention_speedup: float
    attention_share: float
    bound: float
    pflops: float
    dense_pflops: float
    parts: tuple[Part, ...]
    share_given: bool
    gpus: int
    schema: str = SCHEMA

    def to_dict(self) -> dict[str, Any]:
        """Plain values, as `simattn e2e --json` prints them."""
        plain = cast(dict[str, Any], msgspec.to_builtins(self))
        return {"schema": plain.pop("schema"), **plain}


def e2e(
    model: str,
    pattern: str = "radial",
    hw: str | GpuSpec = "h100",
    *,
    shape: str | None = None,
    steps: int | None = None,
    dense_steps: int | None = None,
    dense_layers: int | None = None,
    attention_share: float | None = None,
    gpus: int = 1,
    eager: bool = False,
    kernel: str | None = None,
    baseline: str | None = None,
    setting: Setting = Setting(),  # noqa: B008 (immutable)
    **options: Any,
) -> EndToEnd:
    """Simulate a whole model with a sparse attention: all layers, all steps.

    Parameters
    ----------
    model : str
        Name of a model, or a `config.json`.
    pattern, hw, kernel, baseline, options
        As in `predict`; `options` hold the shape and the parameters of the pattern.
    shape : str, optional
        One of the model's settings.
    steps, dense_steps, dense_layers : int, optional
        Denoising steps, and how many steps and layers keep dense attention; by default those of the model and of the system.
    attention_share : float, optional
        Share of self-attention in the dense run, where it is known: what else there is follows from it and is not simulated.
    gpus : int
        GPUs with tensor parallelism: each has its share of heads and feed-forward, and all-reduces join their sums.
    eager : bool
        Elementwise work op by op, as a framework without a compiler runs it, for models whose code was counted.

    Returns
    -------
    EndToEnd

    Raises
    ------
    UserError
        A name or value is not usable.

    Notes
    -----
    A model runs for long, so clocks are those that a long run sustains. Text encoders and the decoder of a video model are not
    part of it.

    Examples
    --------
    >>> radial = e2e("hunyuan-video", "radial", "h100")
    >>> radial.counts.steps, 1.3 < radial.speedup < radial.bound
    (50, True)
    """
    spec = gpu_shelf.load(hw) if isinstance(hw, str) else hw
    setting = setting._replace(repeats=SETTLED)
    whole = models.load(model)
    known = share_of(whole, gpus)
    if gpus > 1:
        if eager:
            raise UserError("elementwise ops were counted for one GPU: leave out eager with several")
        given = {"q_heads", "kv_heads"} & set(options)
        if given:
            raise UserError(f"with several GPUs heads are those of the model, got {', '.join(sorted(given))}")
        options |= {"q_heads": known.q_heads, "kv_heads": known.kv_heads}
    asked = question(pattern, model=model, shape=shape, **options)
    count = _counts(known, asked.pattern.system.policy, shape, steps, dense_steps, dense_layers)
    run = simulate(asked, spec, kernel=kernel, setting=setting)
    dense = fastest_dense(asked, spec, setting, only=baseline)
    sparse = run.stages["side"]
    ops = _ops(known, asked, spec, eager)
    rest = _rest(known, asked, spec, setting, ops)
    if gpus > 1:
        sums = asked.problem.batch * asked.layout.query_tokens * known.hidden * ELEMENT_BYTES
        rest["all-reduces"] = ALL_REDUCES * peers(spec).all_reduce_seconds(sums, gpus)
    if attention_share is not None:
        if not 0 < attention_share < 1:
            raise UserError(f"attention_share must lie between 0 and 1, got {attention_share}")
        rest = {"everything else": dense.seconds * (1 / attention_share - 1)}
    calls, sparse_calls = count.calls(), count.sparse_calls()
    attention = sparse_calls * sparse + (calls - sparse_calls) * dense.seconds
    others = sum(rest.values()) * calls
    dense_total = calls * dense.seconds + others
    tiling = run.choice.tiling
    pairs = sum(op.schedule.pairs for op in run.plan if isinstance(op, Attention))
    dense_pairs = dense_schedule(asked, Tiling(q=(tiling.q_rows,), kv=(tiling.kv_rows,), pack=tiling.pack)).pairs
    products = {op.name: calls * op.flops for op in ops if isinstance(op, Gemm)}

    def work(pairs: int) -> float:
        return gpus * (asked.problem.flops(pairs) + sum(products.values())) / 1e15

    return EndToEnd(
        gpu=spec.name,
        model=known.name,
        pattern=asked.pattern.name,
        problem=problem_fields(asked),
        kernel=run.choice.profile.name,
        dense_kernel=dense.kernel,
        counts=count,
        latency_ms=(attention + others) * 1e3,
        dense_latency_ms=dense_total * 1e3,
        speedup=dense_total / (attention + others),
        attention_speedup=dense.seconds / sparse,
        attention_share=calls * dense.seconds / dense_total,
        bound=dense_total / (attention + others - sparse_calls * sparse),
        pflops=work(sparse_calls * pairs + (calls - sparse_calls) * dense_pairs),
        dense_pflops=work(calls * dense_pairs),
        parts=(
            Part(
                name="self-attention",
                dense_ms=calls * dense.seconds * 1e3,
                latency_ms=attention * 1e3,
                dense_pflops=gpus * asked.problem.flops(calls * dense_pairs) / 1e15,
            ),
            *(
                Part(
                    name=name,
                    dense_ms=calls * s * 1e3,
                    latency_ms=calls * s * 1e3,
                    dense_pflops=gpus * products.get(name, 0.0) / 1e15,
                )
                for name, s in rest.items()
            ),
        ),
        share_given=attention_share is not None,
        gpus=gpus,
    )


def _counts(
    model: Model, policy: Policy, shape: str | None, steps: int | None, dense_steps: int | None, dense_layers: int | None
) -> Counts:
    """Layers, steps and passes, and which of them are dense."""
    listed = len(policy.dense_steps) if isinstance(policy.dense_steps, tuple) else policy.dense_steps
    found = Counts(
        layers=model.layers,
        steps=steps or (model.shape(shape).steps if model.shapes else 0) or 1,
        passes=model.cfg_batch,
        dense_layers=len(policy.dense_layers) if dense_layers is None else dense_layers,
        dense_steps=listed if dense_steps is None else dense_steps,
    )
    for name, dense, whole in (("layers", found.dense_layers, found.layers), ("steps", found.dense_steps, found.steps)):
        if not 0 <= dense <= whole:
            raise UserError(f"dense_{name} must lie in 0..{whole}, got {dense}")
    return found


def _ops(model: Model, asked: Question, spec: GpuSpec, eager: bool) -> Plan:
    """What a layer runs beside self-attention."""
    tiling = choose_kernel(spec, asked.problem, "dense").tiling
    return layer_ops(model, asked.layout, tiling, batch=asked.problem.batch, eager=eager)


def _rest(model: Model, asked: Question, spec: GpuSpec, setting: Setting, ops: Plan) -> dict[str, float]:
    """Seconds of every op of a layer beside self-attention, the logits dealt to the layers."""
    found: dict[str, float] = {}
    for op in ops:
        if isinstance(op, Attention):
            choice = choose_kernel(spec, asked.problem, "dense")
            seconds = attention_time(choice.spec, choice, op.schedule, asked.problem, setting).stages["launch"]
        else:
            seconds = side_seconds(spec, op, None, setting.clock)
        found[op.name] = found.get(op.name, 0.0) + seconds
    logits = head_gemm(model, batch=asked.problem.batch)
    if logits is not None:
        found[logits.name] = side_seconds(spec, logits, None, setting.clock) / model.layers
    return found


def step_graph(found: EndToEnd) -> TaskGraph:
    """One step as a graph: every layer's ops on one stream, with sparse attention where the system has it.

    Parameters
    ----------
    found : EndToEnd
        Times of all steps together; each op is taken to cost as much in every layer.
    """
    graph, count = TaskGraph(), found.counts
    calls, sparse = count.calls(), count.sparse_calls()
    attention, *others = found.parts
    dense_each = attention.dense_ms / calls
    sparse_each = (attention.latency_ms - (calls - sparse) * dense_each) / sparse if sparse else dense_each
    streams = ["gpu"] if found.gpus == 1 else [f"gpu {rank}" for rank in range(found.gpus)]
    for number in range(count.passes):
        for layer in range(count.layers):
            each = dense_each if layer < count.dense_layers else sparse_each
            for stream in streams:
                graph.add(f"pass {number} layer {layer} attention", stream, each * 1e-3)
            for part in others:
                # An all-reduce begins when the last GPU has its sums.
                after = range(len(graph.tasks) - len(streams), len(graph.tasks)) if part.name == "all-reduces" else ()
                for stream in streams:
                    graph.add(f"pass {number} layer {layer} {part.name}", stream, part.latency_ms / calls * 1e-3, after)
    return graph
