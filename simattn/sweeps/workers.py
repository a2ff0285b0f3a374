"""Who predicts the chunks of a sweep: this process, others on this machine, or a Dask cluster."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Executor, Future, wait
from contextlib import contextmanager
from functools import lru_cache, partial
from hashlib import sha256
from itertools import pairwise
from os import cpu_count
from typing import Any
from uuid import uuid4

import msgspec
from msgspec import Struct

from ..facts import Same, UserError
from ..kernels import Calibration
from ..kernels.calibration import all_calibrations
from .row import Row, evaluate
from .space import Point
from .spec import SweepSpec

Chunk = tuple[int, Sequence[Point]]

POINTS_WORTH_A_WORKER = 200
"""Points of a sweep from which on another process is worth its start of a second or two."""


class Task(Struct, frozen=True):
    """What is the same for all chunks."""

    spec: SweepSpec
    gpus: dict[str, tuple[str, bytes]]
    version: str
    calibrations: str

    def __call__(self, chunk: Chunk) -> tuple[int, list[Row]]:
        """The rows of a chunk, and its number.

        Raises
        ------
        UserError
            The worker is another simattn, or knows other calibrations: its rows would not be those of this one.
        """
        from .. import __version__

        if (__version__, calibrations_hash()) != (self.version, self.calibrations):
            raise UserError(
                f"a worker has another simattn ({__version__}, here {self.version}) or other calibrations than this process"
            )
        number, points = chunk
        return number, evaluate(points, self.gpus, self.spec)


def calibrations_hash() -> str:
    """Twelve hex digits that change with any constant that a calibration has found."""
    return _hash_of(Same(all_calibrations()))


@lru_cache(maxsize=8)
def _hash_of(calibrations: Same[tuple[Calibration, ...]]) -> str:
    return sha256(b"".join(msgspec.json.encode(c, order="sorted") for c in calibrations.value)).hexdigest()[:12]


IDLE_S = 60
"""Seconds without work after which a process ends: those of a sweep that was killed go by themselves."""

Predict = Callable[[Sequence[Chunk]], Iterable[tuple[int, list[Row]]]]
"""Rows of chunks, in the order in which they are done."""


@contextmanager
def workers(task: Task, points: int, *, jobs: int | None, scheduler: str | None) -> Iterator[Predict]:
    """What predicts the chunks of a sweep.

    Parameters
    ----------
    points : int
        That the sweep has in all.
    jobs : int, optional
        Processes; by default one for every few hundred points, at most one a core.
    scheduler : str, optional
        Address of a Dask scheduler, whose workers take the place of processes.

    Raises
    ------
    UserError
        A library is missing, or no scheduler answers.
    """
    many = jobs or min(cpu_count() or 1, -(-points // POINTS_WORTH_A_WORKER))
    if scheduler is not None:
        with _cluster(scheduler) as client:
            yield partial(_on_cluster, client, task)
    elif many == 1:
        yield partial(map, task)
    else:
        try:
            from joblib.externals.loky import ProcessPoolExecutor
        except ImportError:
            raise UserError("more than one process needs joblib: pip install 'simattn[sweep]', or --jobs 1") from None
        processes = [ProcessPoolExecutor(1, timeout=IDLE_S) for _ in range(many)]
        try:
            yield partial(_on_processes, processes, task)
        finally:
            # Otherwise they stay for a while, and hold on to stdout and stderr for as long.
            for process in processes:
                process.shutdown(wait=True, kill_workers=True)


def _on_processes(processes: Sequence[Executor], task: Task, chunks: Sequence[Chunk]) -> Iterator[tuple[int, list[Row]]]:
    """Each process has a stretch of the chunks for itself: neighbours have much in common, which it then works out once.

    One that is through with its own helps where most is left, from the end.
    """
    ends = [len(chunks) * i // len(processes) for i in range(len(processes) + 1)]
    left = [deque(chunks[first:last]) for first, last in pairwise(ends)]
    running: dict[Future[tuple[int, list[Row]]], int] = {}

    def give(i: int) -> None:
        most = max(left, key=len)
        if most:
            running[processes[i].submit(task, left[i].popleft() if left[i] else most.pop())] = i

    # The second one waits in the process, so that it is never without work.
    for i in (*range(len(processes)), *range(len(processes))):
        give(i)
    while running:
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            give(running.pop(future))
            yield future.result()


@contextmanager
def _cluster(scheduler: str) -> Iterator[Any]:
    try:
        from distributed import Client
    except ImportError:
        raise UserError("a cluster needs dask: pip install 'simattn[sweep]'") from None
    try:
        client = Client(scheduler, timeout=CONNECT_S, set_as_default=False)  # type: ignore[no-untyped-call]
    except (OSError, ValueError) as error:
        why = str(error).splitlines()
        raise UserError(f"no Dask scheduler answers at {scheduler}{f': {why[0]}' if why else ''}") from None
    with client:
        yield client


def _on_cluster(client: Any, task: Task, chunks: Sequence[Chunk]) -> Iterator[tuple[int, list[Row]]]:
    from distributed import as_completed

    run, addresses = uuid4().hex[:12], sorted(client.nthreads())

    def submit(place: int, chunk: Chunk) -> Any:
        # As with processes, but that the scheduler moves chunks to workers without work.
        own = [addresses[len(addresses) * place // len(chunks)]] if addresses else None
        return client.submit(task, chunk, key=f"simattn-sweep-{run}-{chunk[0]}", workers=own, allow_other_workers=own is not None)

    futures = [submit(place, chunk) for place, chunk in enumerate(chunks)]
    for future in as_completed(futures, loop=client.loop):  # type: ignore[no-untyped-call]
        yield future.result()
        future.release()


CONNECT_S = 10
"""Seconds after which a scheduler is taken not to be there."""
