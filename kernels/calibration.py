"""Calibrations: what `simattn calibrate` found for a kernel on a GPU, as files that it alone writes.

Ours are in `calibrations/` beside this module, a user's in the data folder of the user; a user's goes before ours. Values are
laid over those of the profile and of the GPU's file, but under what a user sets by hand.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import msgspec
from msgspec import Struct

from ..facts import Same, UserError
from ..hwspecs import GpuSpec, gpus
from .band import Bands
from .profile import KernelProfile, kernels

S = TypeVar("S", bound=Struct)


class Residuals(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Relative errors over a set of rows, as fractions."""

    n: int
    mape: float
    median: float
    p90: float
    max: float
    bias: float


class Domain(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What was measured: head dims, and the shortest and longest sequence."""

    head_dims: tuple[int, ...]
    fewest_tokens: int
    most_tokens: int


class Calibration(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Constants of one kernel on one GPU, and what they rest on.

    Attributes
    ----------
    kernel_parameters, gpu_parameters : dict
        Dotted leaves of the kernel profile and of the GPU's spec, with their values in the units of those.
    environment : dict
        Leaves of the spec that belong to the framework that made the calls, not to the kernel: applied only to its measurements.
    data, rows : str, int
        Measured table, and rows of it that were fitted.
    version, spec_hash : str
        Of simattn, and of the GPU's spec before calibration.
    fit : Residuals
        Over the fitted rows.
    score, roofline : dict
        Over rows that were not fitted, by group, and the same of a roofline whose three constants were fitted to the same rows.
    unidentified : tuple of str
        Parameters that the rows cannot tell apart from others, or not at all.
    bands, domain : dict, Domain
        Bands of predictions by class of call, from half of the scored rows, and what those rows span.
    """

    kernel: str
    gpu: str
    kernel_parameters: dict[str, float]
    gpu_parameters: dict[str, float]
    environment: dict[str, float]
    data: str
    rows: int
    version: str
    spec_hash: str
    fit: Residuals
    score: dict[str, Residuals]
    roofline: dict[str, Residuals]
    unidentified: tuple[str, ...] = ()
    bands: Bands = {}
    domain: Domain | None = None


def _over(struct: S, shipped: S, values: dict[str, float]) -> S:
    """Lay values over the leaves that are still as they were shipped."""
    return with_leaves(struct, {path: value for path, value in values.items() if leaf(struct, path) == leaf(shipped, path)})


def leaf(struct: Any, path: str) -> Any:
    """The value at a dotted path of a struct; keys of dicts are path elements too."""
    for key in path.split("."):
        struct = struct.get(key) if isinstance(struct, dict) else getattr(struct, key)
    return struct


def with_leaves(struct: S, values: dict[str, float]) -> S:
    """A struct with other values at some dotted paths.

    >>> from simattn.hwspecs import gpus
    >>> with_leaves(gpus.load("h100"), {"chip.clock_sustained_mhz": 1800.0}).chip.clock_sustained_mhz
    1800.0
    """
    for path, value in values.items():
        struct = _with_leaf(struct, path.split("."), value)
    return struct


def _with_leaf(struct: Any, keys: list[str], value: float) -> Any:
    first, *rest = keys
    inner = struct.get(first) if isinstance(struct, dict) else getattr(struct, first)
    changed = _with_leaf(inner, rest, value) if rest else value
    return {**struct, first: changed} if isinstance(struct, dict) else msgspec.structs.replace(struct, **{first: changed})


def user_folder() -> Path:
    """Where a user's own calibrations are: the environment variable SIMATTN_CALIBRATIONS, or the user's data folder."""
    given = os.environ.get("SIMATTN_CALIBRATIONS")
    if given:
        return Path(given)
    return _data_folder(os.environ.get("XDG_DATA_HOME")) / "calibrations"


@lru_cache(maxsize=8)
def _data_folder(_home: str | None) -> Path:
    from platformdirs import user_data_path

    return user_data_path("simattn")


class Constants(NamedTuple):
    """A kernel and a GPU with the best constants that are known for the two together.

    Attributes
    ----------
    calibration : Calibration or None
        The kernel's own on this GPU.
    borrowed : Calibration or None
        Where there is none: that of a kernel with a loop program of the same family on this GPU, or on another GPU of the same
        architecture, of which only what belongs to the kernel is taken.
    """

    profile: KernelProfile
    spec: GpuSpec
    calibration: Calibration | None = None
    borrowed: Calibration | None = None


def constants(profile: KernelProfile, spec: GpuSpec, known: Sequence[Calibration] | None = None) -> Constants:
    """The best constants that calibrations know for a kernel on a GPU; of all there are, or only of those given."""
    return _constants(Same(profile), Same(spec), Same(all_calibrations() if known is None else known))


@lru_cache(maxsize=1024)
def _constants(of: Same[KernelProfile], on: Same[GpuSpec], calibrations: Same[Sequence[Calibration]]) -> Constants:
    profile, spec, known = of.value, on.value, calibrations.value
    mine = next((c for c in known if (c.kernel, c.gpu) == (profile.name, spec.name)), None)
    others = [c for c in known if (c.kernel, c.gpu) != (profile.name, spec.name)]
    borrowed = _relative(profile, spec, others) if profile.borrows else None
    kernel_values: dict[str, float] = {}
    gpu_values: dict[str, float] = {}
    # A calibration of few rows holds few constants: the others come from the relative that they were found beside.
    for c in (borrowed, mine):
        if c is not None:
            kernel_values |= _for_arch(c.kernel_parameters, spec.arch)
            gpu_values |= {path: value for path, value in c.gpu_parameters.items() if _holds_for(path, c, spec)}
    if "decode" in profile.phases:
        # Prefill tables know the DRAM by reads and writes of Q and O among those of the keys; a decode step only streams keys.
        gpu_values.pop("eff.dram_read", None)
    shipped_profile = kernels.load(profile.name) if profile.name in kernels else profile
    shipped_spec = gpus.load(spec.name) if spec.name in gpus else spec
    return Constants(
        _over(profile, shipped_profile, kernel_values), _over(spec, shipped_spec, gpu_values), mine, None if mine else borrowed
    )


def _holds_for(path: str, c: Calibration, spec: GpuSpec) -> bool:
    """Whether a constant of a GPU holds for another: efficiencies do within an architecture, clocks do not."""
    return c.gpu == spec.name or (path.startswith("eff.") and _arch(c) == spec.arch)


def _for_arch(values: dict[str, float], arch: str) -> dict[str, float]:
    """Constants of a kernel, with what was found on one architecture said of another."""
    by_arch = "timing.iteration_cycles."
    return {by_arch + arch if path.startswith(by_arch) else path: value for path, value in values.items()}


def _arch(c: Calibration) -> str | None:
    return gpus.load(c.gpu).arch if c.gpu in gpus else None


LENT_BELOW = 0.05
"""Mean error over its own fitted rows up to which a calibration is lent to other kernels: beyond, its constants make up for
something that the model of its own kernel lacks."""


def _relative(profile: KernelProfile, spec: GpuSpec, others: Sequence[Calibration]) -> Calibration | None:
    """The calibration of the nearest relative.

    That is a kernel of the same family here, or on another GPU of the architecture, or else this very kernel on another one.
    """
    able = [c for c in others if c.kernel in kernels and (c.kernel == profile.name or c.fit.mape <= LENT_BELOW)]
    alike = [c for c in able if _family(kernels.load(c.kernel)) == _family(profile)]
    here = [c for c in alike if c.gpu == spec.name]
    near = [c for c in alike if _arch(c) == spec.arch]
    same = [c for c in others if c.kernel == profile.name]
    # The one with most rows behind it; of these, that of the same kernel.
    best = sorted(here or near or same, key=lambda c: (-c.rows, c.kernel != profile.name))
    return best[0] if best else None


def _family(profile: KernelProfile) -> str:
    """Kind of the loop program, up to its variants: `wgmma_pingpong` and `wgmma_free` are of one family."""
    return profile.program.split("_")[0]


def environment_of(data: str, kernel: str, spec: GpuSpec, known: Sequence[Calibration] | None = None) -> GpuSpec:
    """A GPU in the environment of the framework that made a measured table, as far as calibrations know it.

    That is what a calibration on the table itself found, or else one on a table of the same framework and version: other tables
    of a GPU have its environment too, whatever the kernel.
    """
    known = all_calibrations() if known is None else known
    framework = data.split("/")[2:4]
    alike = [c for c in known if c.environment and framework and c.data.split("/")[2:4] == framework]
    own = [c for c in known if (c.data, c.kernel, c.gpu) == (data, kernel, spec.name)]
    near = sorted(alike, key=lambda c: (c.gpu != spec.name, _arch(c) != spec.arch, c.kernel != kernel, -c.rows))
    return with_leaves(spec, (own or near)[0].environment) if own or near else spec


def all_calibrations() -> tuple[Calibration, ...]:
    """Every calibration, a user's before ours of the same kernel and GPU; by name of the file."""
    # A file that was written anew, as by a fit in this very process, is read anew. A fit puts it in the place of the old one,
    # and so changes the folder; in the user's folder, which has few files, somebody may have edited one.
    return _read_all(os.stat(OURS).st_mtime_ns, tuple(_stated(user_folder())))


OURS = os.path.join(os.path.dirname(__file__), "calibrations")
"""Where the calibrations that ship with the package are."""

File = tuple[str, str, int, int]
"""Name and path of a calibration's file, when it was written, and its size."""


def _stated(folder: str | Path) -> Iterator[File]:
    """The calibrations of a folder, if there is one."""
    with suppress(FileNotFoundError, NotADirectoryError):
        for entry in os.scandir(folder):
            if entry.name.endswith(".json"):
                yield entry.name, entry.path, entry.stat().st_mtime_ns, entry.stat().st_size


@lru_cache(maxsize=8)
def _read_all(_changed_ns: int, theirs: tuple[File, ...]) -> tuple[Calibration, ...]:
    files = {file[0]: file for file in (*_stated(OURS), *theirs)}
    return tuple(_read(*file[1:]) for _, file in sorted(files.items()))


@lru_cache(maxsize=256)
def _read(path: str, changed_ns: int, size: int) -> Calibration:
    try:
        return msgspec.json.decode(Path(path).read_bytes(), type=Calibration)
    except (OSError, msgspec.DecodeError) as error:
        raise UserError(f"{path}: {error}") from None


def file_name(kernel: str, gpu: str) -> str:
    """Name of the file of a calibration."""
    return f"{kernel}@{gpu}.json"
