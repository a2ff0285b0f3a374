"""The run: every case that is not in the file yet is prepared, checked, timed and written, one after another."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Callable, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any, NamedTuple

from ...facts import UserError
from .check import WrongError
from .machine import Machine
from .plan import BUDGET_S, Planned
from .row import described, failed, measured, row_id
from .runners import prepare
from .store import Store
from .timer import FEWEST, MOST, QUEUE, measure
from .work import UnavailableError, needs_flush


class Done(NamedTuple):
    """How a run ended."""

    rows: list[dict[str, Any]]
    """Rows written by this run."""
    skipped: int
    """Cases that the file held already."""
    left: int
    """Cases that the time did not suffice for: run again."""
    unavailable: Counter[str]
    """Why cases cannot run on this machine, and how many."""
    broken: str = ""
    """Why the run had to stop: after a fault on the GPU nothing runs in this process any more."""


def run(
    planned: Sequence[Planned],
    machine: Machine,
    store: Store,
    *,
    seconds: float | None = None,
    on_case: Callable[[str], None] = lambda name: None,
    now: Callable[[], float] = monotonic,
) -> Done:
    """Measure what is not in the store.

    Parameters
    ----------
    planned : sequence of Planned
        Cases in the order in which they are run.
    seconds : float, optional
        Stop before a case that would end later than this, in s from the start.
    on_case : callable
        Told the name of each case before it starts, and once more, with an empty name, at the end.

    Raises
    ------
    UserError
        The store has rows of another machine.
    """
    store.require_same(machine.environment)
    begin, flush = now(), _flush(machine)
    rows: list[dict[str, Any]] = []
    unavailable: Counter[str] = Counter()
    skipped = left = 0
    broken = ""
    for item in planned:
        if row_id(item.case, machine.table) in store:
            skipped += 1
            on_case(item.case.key)
            continue
        if broken or (seconds is not None and now() - begin + item.seconds > seconds):
            left += 1
            continue
        on_case(item.case.key)
        try:
            row = _case(item, machine, flush)
        except UnavailableError as reason:
            unavailable[str(reason)] += 1
            continue
        store.append(row)
        rows.append(row)
        broken = _fault(machine)
    on_case("")
    return Done(rows, skipped, left, unavailable, broken)


def _case(item: Planned, machine: Machine, flush: Callable[[], Any] | None) -> dict[str, Any]:
    """The row of one case: its time, or why it has none."""
    case, row = item.case, described(item.case, machine)
    try:
        work = prepare(case, machine)
        checked = work.check()
        between = flush if needs_flush(work, machine, case) else None
        # With its two events and the flush, a call takes three places in the queue beside its own.
        room = max(QUEUE // (work.ops + 3), 1)
        fewest, most = (1, 1) if machine.interpreted else (min(FEWEST, room), min(MOST, room))
        timing = measure(machine.timer, work.calls, between=between, budget_s=BUDGET_S, fewest=fewest, most=most)
        return measured(row, case, machine, work, timing, checked)
    except (WrongError, UserError) as error:
        return failed(row, str(error))
    except UnavailableError:
        raise
    except Exception as error:  # whatever a kernel or a package throws belongs into the row, not into the user's face
        if type(error).__name__ == "OutOfMemoryError":
            return failed(row, "out of memory")
        return failed(row, f"{type(error).__name__}: {' '.join(str(error).split())[:300]}")
    finally:
        # Inputs of the next case may need the room.
        gc.collect()
        _release(machine)


def _release(machine: Machine) -> None:
    if machine.device == "cuda":
        import torch

        # After a fault even this fails; `_fault` will say so.
        with suppress(RuntimeError):
            torch.cuda.empty_cache()


def _fault(machine: Machine) -> str:
    """What the GPU says, where a kernel has faulted: such a fault stays with the process."""
    if machine.device != "cuda":
        return ""
    import torch

    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        return " ".join(str(error).split())[:200]
    return ""


def _flush(machine: Machine) -> Callable[[], Any] | None:
    """What overwrites L2 between calls."""
    if machine.device != "cuda":
        return None
    import torch

    buffer = torch.empty(2 * machine.l2_bytes, dtype=torch.uint8, device=machine.device)
    return buffer.zero_
