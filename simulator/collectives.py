"""Several GPUs: how long a message takes from one to the next, and an all-reduce over all of them."""

from __future__ import annotations

import tomllib
from functools import cache
from pathlib import Path
from typing import Annotated, NamedTuple

import msgspec
from msgspec import Meta, Struct

from ..facts import Provenance, UserError
from ..hwspecs import GpuSpec

Share = Annotated[float, Meta(gt=0, le=1)]
Microseconds = Annotated[float, Meta(gt=0)]


class Protocol(Struct, frozen=True, forbid_unknown_fields=True):
    """One way of NCCL to send: fast to start, or fast for much."""

    start_us: Microseconds
    step_us: Microseconds
    share: Share


class _Link(Struct, frozen=True, forbid_unknown_fields=True):
    both_ways: Share
    """Of the rate of one direction, what each gets when both are in use."""
    protocols: dict[str, Protocol]


class _Table(Struct, frozen=True, forbid_unknown_fields=True):
    nvlink: _Link
    pcie: _Link
    meta: dict[str, Provenance]


class Peers(NamedTuple):
    """The link between the GPUs of one node.

    Attributes
    ----------
    bytes_per_s : float
        That a GPU sends while it receives as much.
    """

    bytes_per_s: float
    protocols: tuple[Protocol, ...]

    def send_seconds(self, bytes_: float) -> float:
        """A message to the next GPU, while one arrives from the other side."""
        return self._seconds(bytes_, steps=1)

    def all_reduce_seconds(self, bytes_: float, gpus: int) -> float:
        """The sum of `bytes_` on each GPU, on all of them: once round the ring to add up, and once to hand out.

        Examples
        --------
        >>> from simattn.hwspecs import gpus
        >>> h100 = peers(gpus.load("h100"))
        >>> [round(h100.all_reduce_seconds(n * 2**20, 8) * 1e6) for n in (0.01, 1, 1024)]
        [15, 25, 5148]
        """
        if gpus == 1:
            return 0.0
        return self._seconds(2 * (gpus - 1) / gpus * bytes_, steps=2 * (gpus - 1))

    def _seconds(self, bytes_: float, steps: int) -> float:
        """By the protocol that takes the least."""
        return min(
            (way.start_us + steps * way.step_us) * 1e-6 + bytes_ / (self.bytes_per_s * way.share) for way in self.protocols
        )


def peers(spec: GpuSpec) -> Peers:
    """How GPUs of a kind reach each other: by their own link, and where they have none, by that to the host.

    Raises
    ------
    UserError
        The GPU has no link at all.
    """
    if spec.link.peer is not None:
        link, known = spec.link.peer, _table().pcie if spec.link.peer.kind.startswith("pcie") else _table().nvlink
        return Peers(link.gbps * 1e9 * (link.eff or 1.0) * known.both_ways, tuple(known.protocols.values()))
    if spec.link.host is not None:
        host, known = spec.link.host, _table().pcie
        return Peers(host.gbps * 1e9 * (host.eff or 1.0) * known.both_ways, tuple(known.protocols.values()))
    raise UserError(f"GPU {spec.name} has no link to another GPU")


@cache
def _table() -> _Table:
    text = Path(__file__).with_name("collectives.toml").read_text(encoding="utf-8")
    return msgspec.convert(tomllib.loads(text), _Table)
