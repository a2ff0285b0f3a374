"""Where the time goes: the stages of a prediction, alone or beside those of the dense call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..explain import Explanation
from ..explain.words import ms
from ..report import STAGE_WORDS
from ..simulator import Prediction
from ..simulator.prediction import Stage
from .look import COLOURS, FAINT, figure


def waterfall_figure(p: Prediction) -> Any:
    """The stages of one prediction."""
    drawn = _empty(f"{p.pattern} on {p.gpu}: {ms(p.latency_ms)} by {p.kernel}")
    _bars(drawn, p.pattern, p.waterfall, COLOURS[0])
    drawn.update_layout(showlegend=False)
    return drawn


def both_waterfalls_figure(e: Explanation) -> Any:
    """The stages of a sparse call and of the dense one, on one scale; what each takes from the speedup beside its name."""
    p = e.prediction
    drawn = _empty(f"{p.pattern} on {p.gpu}: {p.speedup:.2f} x of the {e.stages[0].speedup:.2f} x that live FLOPs promise", 620)
    factors = {s.stage: f"x {s.factor:.2f}" if s.stage != "ideal" else f"{s.factor:.2f} x" for s in e.stages}
    causes = {s.stage: s.cause for s in e.stages}
    _bars(drawn, f"dense by {p.dense.kernel}, {ms(p.dense.latency_ms)}", e.dense_waterfall, FAINT, factors, causes)
    _bars(drawn, f"{p.pattern} by {p.kernel}, {ms(p.latency_ms)}", p.waterfall, COLOURS[0], factors, causes)
    drawn.update_layout(barmode="group", bargap=0.25, legend={"orientation": "h", "y": -0.14, "traceorder": "reversed"})
    return drawn


def _empty(title: str, height: int = 440) -> Any:
    drawn = figure(title, height=height)
    drawn.update_xaxes(title_text="time, ms", rangemode="tozero")
    drawn.update_yaxes(autorange="reversed", showgrid=False, ticks="")
    return drawn


def _bars(
    drawn: Any,
    name: str,
    stages: Sequence[Stage],
    colour: str,
    factors: dict[str, str] | None = None,
    causes: dict[str, str] | None = None,
) -> None:
    """A bar a stage, from the end of the stage before to its own."""
    before = [0.0, *(stage.latency_ms for stage in stages[:-1])]
    added = [stage.latency_ms - start for stage, start in zip(stages, before, strict=True)]
    whole = stages[-1].latency_ms
    drawn.add_bar(
        orientation="h",
        name=name,
        y=[f"{s.stage}  <b>{factors[s.stage]}</b>" if factors else s.stage for s in stages],
        x=added,
        base=before,
        marker={"color": colour},
        text=[f"{'+' * (n > 0)}{ms(more)}, {100 * more / whole:.0f} %" if more else "" for n, more in enumerate(added)],
        textposition="outside",
        cliponaxis=False,
        customdata=[[STAGE_WORDS[s.stage], (causes or {}).get(s.stage, "")] for s in stages],
        hovertemplate=f"{name}<br>%{{customdata[0]}}: %{{x:.4g}} ms<br>%{{customdata[1]}}<extra></extra>",
    )
    drawn.update_xaxes(range=[0, 1.15 * max(whole, *(drawn.layout.xaxis.range or [0]))])
