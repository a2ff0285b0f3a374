"""Points that an optimizer chooses by the rows so far (Optuna, tree-structured Parzen estimator)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..facts import UserError
from .row import Row
from .space import Axis, Point, Space
from .spec import OBJECTIVES, Range

TRIALS_AT_ONCE = 8
"""Trials that are asked for before any of them is told: so many can be predicted side by side. Not a matter of how many workers
there are, or the search would depend on the machine."""


class Search:
    """The search of a spec. It is deterministic: asked and told the same again, it makes the same choices.

    So what is kept of a search that was killed are its rows, as of any sweep, and it goes on by being told these again.

    Parameters
    ----------
    space : Space
        Of a spec with an objective and a number of trials.
    """

    def __init__(self, space: Space) -> None:
        try:
            import optuna
        except ImportError:
            raise UserError("a search needs optuna: pip install 'simattn[sweep]'") from None
        optuna.logging.set_verbosity(optuna.logging.WARNING)
        self._optuna, self._space = optuna, space
        self._objective = space.spec.optimize or ""
        self._study = optuna.create_study(direction=OBJECTIVES[self._objective])
        self._asked: list[Any] = []

    def __len__(self) -> int:
        return self._space.spec.trials or 0

    def chunks(self) -> list[range]:
        """Numbers of the points that are asked for together."""
        return [range(first, min(first + TRIALS_AT_ONCE, len(self))) for first in range(0, len(self), TRIALS_AT_ONCE)]

    def ask(self, numbers: range) -> list[Point]:
        """The next points."""
        # A sampler of its own for each round: what it draws does not depend on the rounds that were drawn before it was killed.
        self._study.sampler = self._optuna.samplers.TPESampler(seed=(self._space.spec.seed + numbers.start) % 2**32)
        self._asked = [self._study.ask() for _ in numbers]
        return [self._point(trial, number) for trial, number in zip(self._asked, numbers, strict=True)]

    def tell(self, rows: Sequence[Row]) -> None:
        """What came of them; a point without an answer is a failed trial."""
        for trial, row in zip(self._asked, rows, strict=True):
            if row["error"] is None:
                self._study.tell(trial, row[self._objective])
            else:
                self._study.tell(trial, state=self._optuna.trial.TrialState.FAIL)

    def _point(self, trial: Any, number: int) -> Point:
        patterns = self._space.spec.patterns
        pattern = patterns[trial.suggest_categorical("pattern", range(len(patterns)))]
        return self._space.point(number, pattern, {axis.name: _chosen(trial, axis) for axis in self._space.axes_of(pattern)})


def _chosen(trial: Any, axis: Axis) -> Any:
    """A value of an axis."""
    values = axis.values
    if isinstance(values, Range):
        if values.whole:
            return trial.suggest_int(axis.name, values.low, values.high, log=values.log)
        return trial.suggest_float(axis.name, values.low, values.high, log=values.log)
    if all(type(value) in (int, float) for value in values):
        # Numbers have neighbours: their places in order.
        ordered = sorted(values)  # type: ignore[type-var]
        return ordered[trial.suggest_int(axis.name, 0, len(ordered) - 1)]
    return values[trial.suggest_categorical(axis.name, range(len(values)))]
