"""What claims are about, computed by the simulator: a time, a ratio, a rate or a share."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from functools import lru_cache
from typing import Any

from ...simulator import predict, question
from ...simulator.e2e import EndToEnd, e2e
from ...simulator.prediction import Prediction
from ...workloads import Attention, Tiling
from .setting import Quantity, Setting

Options = dict[str, Any]

MODEL_FREE = ("q_heads", "kv_heads", "head_dim")
"""What a claim says of its call that its model says too."""


def quantity(setting: Setting, gpu: str, call: Options, other: Options) -> float:
    """The claimed figure as the simulator has it; times in seconds.

    Raises
    ------
    UserError
        The call cannot be simulated; one line.
    """
    return _QUANTITIES[setting.gives](setting.pattern, gpu, call, other)


def answer_to(pattern: str, gpu: str, call: Options) -> Prediction:
    """The call as `predict` answers it."""
    given = {name: value for name, value in call.items() if name not in ("stage", "dense_flops", "ops")}
    return _predict(given.pop("pattern", pattern), gpu, **given)


_predict = lru_cache(maxsize=8)(predict)
"""A ratio asks for the same call more than once."""


def _seconds(pattern: str, gpu: str, call: Options) -> float:
    """A call up to a stage of the waterfall: `clock` is the kernel alone, `launch` the attention, `side` all of it."""
    answer, last = answer_to(pattern, gpu, call), call.get("stage", "side")
    return next(stage.latency_ms for stage in answer.waterfall if stage.stage == last) * 1e-3


def _kernel_time(pattern: str, gpu: str, call: Options, other: Options) -> float:
    return _seconds(pattern, gpu, call)


def _speedup(pattern: str, gpu: str, call: Options, other: Options) -> float:
    """Of the call over another one, or over the dense one."""
    if other:
        return _seconds(pattern, gpu, {**call, **other}) / _seconds(pattern, gpu, call)
    return answer_to(pattern, gpu, call).dense.latency_ms * 1e-3 / _seconds(pattern, gpu, call)


def _rate(pattern: str, gpu: str, call: Options, other: Options) -> float:
    """TFLOP/s: of live work, or of what dense attention would compute (`dense_flops`)."""
    answer = answer_to(pattern, gpu, call)
    seconds = _seconds(pattern, gpu, call)
    live = answer.tflops * answer.latency_ms * 1e-3
    return live / (answer.density.pairs if call.get("dense_flops") else 1.0) / seconds


def _side(pattern: str, gpu: str, call: Options, other: Options) -> float:
    """Named kernels beside the attention."""
    answer = answer_to(pattern, gpu, call)
    return sum(op.latency_ms for op in answer.side if op.op in call["ops"]) * 1e-3


def _side_speedup(pattern: str, gpu: str, call: Options, other: Options) -> float:
    return _side(pattern, gpu, {**call, **other}, {}) / _side(pattern, gpu, call, {})


def _keys_read(pattern: str, gpu: str, call: Options, other: Options) -> float:
    """How many times fewer keys are read."""
    asked = question(pattern, **{**call, "seq_q": 1, "phase": "decode"})
    plan = asked.pattern.plan(asked.problem, asked.layout, lambda mask_class, kernel: Tiling(q=(16,), kv=(64,)))
    read = sum(op.schedule.pairs for op in plan if isinstance(op, Attention))
    return asked.problem.q_heads * asked.problem.seq_kv / read


def _model(pattern: str, gpu: str, call: Options) -> EndToEnd:
    given = {name: value for name, value in call.items() if name in _E2E and name not in MODEL_FREE}
    return e2e(given.pop("model"), pattern, gpu, params={n: v for n, v in call.items() if n not in _E2E}, **given)


_E2E = {*inspect.signature(e2e).parameters, *inspect.signature(question).parameters}
"""What is no parameter of the pattern."""


def _model_time(pattern: str, gpu: str, call: Options, other: Options) -> float:
    return _model(pattern, gpu, call).latency_ms * 1e-3


def _model_speedup(pattern: str, gpu: str, call: Options, other: Options) -> float:
    return _model(pattern, gpu, call).speedup


def _attention_share(pattern: str, gpu: str, call: Options, other: Options) -> float:
    """Of the dense run, in percent."""
    return 100 * _model(pattern, gpu, call).attention_share


def _attention_time(pattern: str, gpu: str, call: Options, other: Options) -> float:
    """Of all self-attention in a run."""
    return _model(pattern, gpu, call).parts[0].latency_ms * 1e-3


def _over_dense(pattern: str, gpu: str, call: Options, other: Options) -> float:
    """Attention of all layers, of which some stay dense, over that of as many dense layers."""
    given = dict(call)
    layers, dense_layers = given.pop("layers"), given.pop("dense_layers")
    dense = answer_to(pattern, gpu, given).dense.latency_ms * 1e-3
    return (dense_layers * dense + (layers - dense_layers) * _seconds(pattern, gpu, given)) / (layers * dense)


def _attention_speedup(pattern: str, gpu: str, call: Options, other: Options) -> float:
    return 1 / _over_dense(pattern, gpu, call, other)


def _generation(pattern: str, gpu: str, call: Options, other: Options) -> float:
    """Decoding token after token, from an empty context to `tokens`: the trapezoid over a few lengths."""
    given = dict(call)
    tokens = given.pop("tokens")
    lengths = [max(64, tokens * i // PIECES) for i in range(PIECES + 1)]
    steps = [_model(pattern, gpu, {**given, "seq_q": 1, "seq_kv": n}).latency_ms * 1e-3 for n in lengths]
    return tokens * (sum(steps) - (steps[0] + steps[-1]) / 2) / PIECES


PIECES = 6
"""Pieces into which a growing context is cut."""


_QUANTITIES: dict[Quantity, Callable[[str, str, Options, Options], float]] = {
    "kernel time": _kernel_time,
    "kernel speedup": _speedup,
    "kernel rate": _rate,
    "side time": _side,
    "side speedup": _side_speedup,
    "keys read": _keys_read,
    "attention share": _attention_share,
    "attention over dense": _over_dense,
    "attention speedup": _attention_speedup,
    "attention time": _attention_time,
    "model time": _model_time,
    "model speedup": _model_speedup,
    "generation time": _generation,
}
