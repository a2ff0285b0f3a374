"""What a layer of a model runs beside its self-attention: projections, feed-forward, cross-attention, norms and residuals."""

from __future__ import annotations

from dataclasses import replace

import msgspec

from ..facts import UserError
from .layout import Tiling, TokenLayout
from .model import Model, Projection
from .ops import Attention, Gemm, Memory, Plan
from .plan import dense_part

ELEMENT_BYTES = 2
"""Activations and weights outside of attention are 16 bits wide."""


def projections(model: Model) -> tuple[Projection, ...]:
    """The matrix products of a layer: the model's own list, or what its sizes imply.

    >>> from simattn.workloads import models
    >>> [p.name for p in projections(models.load("hunyuan-video"))]
    ['qkv', 'out', 'feed-forward up', 'feed-forward down']
    """
    if model.projections:
        return model.projections
    hidden, wide, values = model.hidden, model.head_dim, model.head_dim_v or model.head_dim
    found = [
        Projection(name="qkv", inputs=hidden, outputs=model.q_heads * wide + model.kv_heads * (wide + values)),
        Projection(name="out", inputs=model.q_heads * values, outputs=hidden),
    ]
    if model.cross_text:
        found += [
            Projection(name="cross q", inputs=hidden, outputs=hidden),
            Projection(name="cross kv", inputs=hidden, outputs=2 * hidden, rows="cross_text"),
            Projection(name="cross out", inputs=hidden, outputs=hidden),
        ]
    return (
        *found,
        Projection(name="feed-forward up", inputs=hidden, outputs=model.ffn_hidden * (model.ffn_matrices - 1)),
        Projection(name="feed-forward down", inputs=model.ffn_hidden, outputs=hidden),
    )


def layer_ops(model: Model, layout: TokenLayout, tiling: Tiling, *, batch: int = 1, eager: bool = False) -> Plan:
    """The ops of one layer beside its self-attention, in stream order, for the query tokens of a layout.

    Parameters
    ----------
    tiling : Tiling
        Of the dense kernel, which runs cross-attention.
    batch : int
        Items.
    eager : bool
        Elementwise work op by op, as the model's own code runs it, in place of fused kernels.

    Raises
    ------
    UserError
        The ops of the model's code were not counted.

    Notes
    -----
    Elementwise work is counted as fused kernels (`torch.compile`, or hand-written ones) move it: each norm with its modulation
    and each rotary embedding reads and writes its values once, a residual reads two and writes one, an activation reads what
    the first product wrote and writes what the second reads. Run op by op it moves a multiple of that.

    Examples
    --------
    >>> from simattn.workloads import Tiling, models
    >>> hunyuan = models.load("hunyuan-video")
    >>> ops = layer_ops(hunyuan, hunyuan.layout(), Tiling(q=(128,), kv=(128,)))
    >>> round(sum(op.flops for op in ops if isinstance(op, Gemm)) * hunyuan.layers / 1e15, 2)
    1.57
    """
    tokens = batch * layout.query_tokens
    rows = {"tokens": tokens, "cross_text": batch * model.cross_text, "one": batch}
    found: list[Gemm | Memory | Attention] = []
    for product in projections(model):
        m, n, k = rows[product.rows], product.outputs, product.inputs
        # Weights are read and the result is written; where rows are few, that is what takes the time.
        moved = ELEMENT_BYTES * (n * k + m * n)
        found.append(Gemm(product.name, 2.0 * m * n * k, moved, 1, "bf16", (m, n, k)))
        if product.name == "cross kv":
            found.append(_cross_attention(model, layout, tiling, batch))
    if eager:
        return (*found, *_eager(model, tokens))
    values = 2 * 2 * model.hidden + 2 * 3 * model.hidden + 2 * (model.q_heads + model.kv_heads) * model.head_dim
    values += model.ffn_matrices * model.ffn_hidden
    if model.cross_text:
        values += 2 * model.hidden + 3 * model.hidden
    launches = 6 + (2 if model.cross_text else 0)
    return (*found, Memory("norms, rotary, activation, residuals", ELEMENT_BYTES * values * tokens, launches))


def _eager(model: Model, tokens: int) -> Plan:
    """Elementwise work op by op, of the mean layer."""
    if not model.eager:
        raise UserError(f"the elementwise ops of {model.name} were not counted: leave out eager")
    ops = []
    for work in model.eager:
        kernels = work.kernels * work.layers / model.layers
        values = round(work.width * tokens * kernels)
        found = Memory(work.name, work.bytes * values, max(1, round(kernels)))
        ctas = values // work.row if work.row else 0
        ops.append(replace(found, values=values, form=work.form, divisions=work.divisions, ctas=ctas, threads=128))
    return tuple(ops)


def _cross_attention(model: Model, layout: TokenLayout, tiling: Tiling, batch: int) -> Attention:
    problem = model.problem(layout=layout)
    schedule = dense_part(TokenLayout(grid=(layout.query_tokens,)), problem, tiling, keys=model.cross_text)
    return Attention("cross-attention", schedule.with_copies(batch), "dense")


def head_gemm(model: Model, *, batch: int = 1) -> Gemm | None:
    """The product that gives the logits of the last token of each item; None where a model has none."""
    if not model.vocab:
        return None
    m, n, k = batch, model.vocab, model.hidden
    return Gemm("logits", 2.0 * m * n * k, ELEMENT_BYTES * (n * k + m * n), 1, "bf16", (m, n, k))


def weight_bytes(model: Model) -> int:
    """Bytes of the weights of all layers, and of the logits and the embedding where a model has a vocabulary.

    >>> from simattn.workloads import models
    >>> round(weight_bytes(models.load("llama-3.1-8b")) / 2 / 1e9, 1)
    8.0
    """
    of_layer = sum(product.inputs * product.outputs for product in projections(model))
    return ELEMENT_BYTES * (model.layers * of_layer + 2 * model.vocab * model.hidden)


ALL_REDUCES = 2
"""All-reduces of a layer whose heads and feed-forward are divided: behind the output projection, and behind the feed-forward."""


def share_of(model: Model, gpus: int) -> Model:
    """What each of several GPUs has of a language model under tensor parallelism.

    Heads, the inner width of the feed-forward and the vocabulary are divided; norms and residuals of every token are on all GPUs.
    K/V heads that are fewer than the GPUs are on several of them.

    Raises
    ------
    UserError
        The model is not divided that way, or not into so many parts.

    References
    ----------
    Megatron-LM, arXiv 1909.08053.

    Examples
    --------
    >>> from simattn.workloads import models
    >>> part = share_of(models.load("llama-3.1-70b"), 16)
    >>> part.q_heads, part.kv_heads, part.ffn_hidden
    (4, 1, 1792)
    """
    if gpus == 1:
        return model
    if model.kind != "llm" or model.projections:
        raise UserError(f"only plain language models are divided over heads, not {model.name}")
    for name, count in (("query heads", model.q_heads), ("inner width", model.ffn_hidden)):
        if gpus < 1 or count % gpus:
            raise UserError(f"the {name} of {model.name}, {count}, cannot be divided over {gpus} GPUs")
    if model.kv_heads % gpus and gpus % model.kv_heads:
        raise UserError(f"the K/V heads of {model.name}, {model.kv_heads}, cannot be divided over {gpus} GPUs")
    return msgspec.structs.replace(
        model,
        q_heads=model.q_heads // gpus,
        kv_heads=max(model.kv_heads // gpus, 1),
        ffn_hidden=model.ffn_hidden // gpus,
        vocab=-(-model.vocab // gpus),
    )
