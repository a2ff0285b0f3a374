"""Calibration: a few physical constants of one kernel on one GPU, fitted to the fit set of a measured table and to nothing else.

Which rows those are is decided in `protocol`; which constants, and within which bounds, in `parameters.toml`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from importlib.metadata import version
from pathlib import Path

import msgspec
import numpy as np

from ..facts import UserError
from ..hwspecs import load_labelled
from ..kernels import Calibration, Residuals, constants
from ..kernels.band import ENOUGH, Bands, bands, classes
from ..kernels.calibration import Domain, all_calibrations, file_name
from .compare import Row, compare, is_dense
from .fit import Case, Model, fit, parameters
from .measurement import Measurement
from .protocol import MOST_FITTED, MOST_SCORED, fit_rows, in_order, is_fitted, makes_bands, protocol, score_rows
from .roofline import fitted_roofline
from .scoreboard import runs_of, unseen_rows
from .sources import published_runs


def calibrate(
    runs: Iterable[Measurement],
    *,
    most_fitted: int = MOST_FITTED,
    most_scored: int = MOST_SCORED,
    on_step: Callable[[str], None] = lambda what: None,
) -> Calibration:
    """Fit the constants of one kernel on one GPU, and score them on what was not fitted.

    Parameters
    ----------
    runs : iterable of Measurement
        Calls of one kernel on one GPU, as a serving framework times them.
    on_step : callable
        Told what is being done, each time that something is.

    Returns
    -------
    Calibration

    Raises
    ------
    UserError
        The rows are of several kernels or GPUs, or none of them may be fitted.
    """
    usable = in_order(runs)
    labels = {(run.gpu, run.kernel, run.table) for run in usable}
    if len(labels) != 1:
        raise UserError(f"a calibration needs rows of one GPU, kernel and table, got {len(labels)} kinds")
    chosen = fit_rows(usable, most_fitted)
    if not chosen:
        raise UserError("no row may be fitted: dense causal rows of head_dim 128 are needed")
    cases = [Case.of(run) for run in chosen]
    profile, ((gpu, _, table),) = cases[0].choice.profile, labels
    # Few rows pin down few constants: the first ones of the kernel. The others are taken from its nearest relative.
    spec = load_labelled(gpu)
    relatives = [c for c in all_calibrations() if (c.kernel, c.gpu) != (profile.name, spec.name)]
    free = parameters(profile, spec)
    if len(cases) > 2 * len(free):
        # Constants that are all fitted owe nothing to a relative, not even where the fit starts.
        model = Model(cases, profile, spec, free)
    else:
        start = constants(profile, spec, relatives)
        model = Model(cases, start.profile, start.spec, free[: len(cases)])
    found = fit(model, on_step)
    values = dict(zip((p.path for p in model.free), model.values(found.unit), strict=True))

    def of(owner: str) -> dict[str, float]:
        return {p.path: float(f"{values[p.path]:.5g}") for p in model.free if p.owner == owner}

    fitted = Calibration(
        kernel=profile.name,
        gpu=spec.name,
        kernel_parameters=of("kernel"),
        gpu_parameters=of("gpu"),
        environment=of("environment"),
        data=table,
        rows=len(cases),
        version=version("simattn"),
        spec_hash=spec.spec_hash(),
        fit=residuals([float(np.expm1(x)) for x in found.log_ratios]),
        score={},
        roofline={},
        unidentified=found.unidentified,
    )
    on_step("scoring")
    return scored(fitted, chosen, score_rows(usable, most_scored), relatives)


def calibrate_all(folder: Path, on_step: Callable[[str], None] = lambda what: None) -> list[Calibration]:
    """Make every calibration that the protocol names, and then the bands of kernels without one: some half an hour.

    Parameters
    ----------
    folder : Path
        Where the files of the calibrations go; that of the bands goes beside it. All of them are overwritten.
    """
    made = []
    for subject in protocol().calibrated:
        made.append(_made(folder, subject.table, runs_of(subject), on_step))
    published = published_runs()
    for gpu, kernel, table in sorted({(run.gpu, run.kernel, run.table) for run in published if is_fitted(run)}):
        runs = [run for run in published if (run.gpu, run.kernel, run.table) == (gpu, kernel, table)]
        made.append(_made(folder, f"{kernel} on {gpu}", runs, on_step))
    write_bands(folder, on_step)
    return made


def _made(folder: Path, name: str, runs: list[Measurement], on_step: Callable[[str], None]) -> Calibration:
    found = calibrate(runs, on_step=lambda what: on_step(f"{name}: {what}"))
    write_calibration(found, folder)
    return found


def write_calibration(found: Calibration, folder: Path) -> Path:
    """Write a calibration as the file that `kernels` reads, and return its path."""
    folder.mkdir(parents=True, exist_ok=True)
    path = folder / file_name(found.kernel, found.gpu)
    # In one step: another process may be reading it.
    new = path.with_suffix(".new")
    new.write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")
    new.replace(path)
    return path


def write_bands(folder: Path, on_step: Callable[[str], None] = lambda what: None) -> None:
    """Write the bands of kernels without a calibration, from half of the rows of GPUs left out and of published runs."""
    rows: dict[str, list[Row]] = {"profile": compare(published_runs())}
    for subject in protocol().unseen:
        on_step(f"{subject.table} with {', '.join(subject.knows)}: bands")
        rows.setdefault(subject.step, []).extend(unseen_rows(subject))
    found = {step: bands_of([row for row in members if makes_bands(row.id)]) for step, members in sorted(rows.items())}
    (folder.parent / "bands.json").write_bytes(msgspec.json.format(msgspec.json.encode(found), indent=2) + b"\n")


def scored(
    fitted: Calibration, chosen: Sequence[Measurement], held_out: Sequence[Measurement], relatives: Sequence[Calibration]
) -> Calibration:
    """A calibration with its errors on rows that were not fitted, and with the bands that half of them make."""
    known = [*relatives, fitted]
    rows = [row for row in compare(held_out, known=known, fitted_too=True) if row.error is not None]
    roofline = fitted_roofline(compare(chosen, known=known, fitted_too=True))
    groups: dict[str, list[Row]] = {}
    for row in rows:
        for name in _groups(row):
            groups.setdefault(name, []).append(row)
    naive = (
        {name: [roofline.ms(row) / (row.measured_ms or 0.0) - 1 for row in found] for name, found in groups.items()}
        if roofline
        else {}
    )
    return msgspec.structs.replace(
        fitted,
        score={name: residuals([row.error or 0.0 for row in found]) for name, found in groups.items()},
        roofline={name: residuals(found) for name, found in naive.items()},
        bands=bands_of([row for row in rows if makes_bands(row.id)]) if len(rows) >= ENOUGH else {},
        domain=_domain(rows),
    )


def bands_of(rows: Iterable[Row]) -> Bands:
    """Bands by class of call, from the residuals of some rows."""
    return bands(
        [(classes_of(row), (row.predicted_ms or 0.0) / (row.measured_ms or 1.0)) for row in rows if row.error is not None]
    )


def classes_of(row: Row) -> tuple[str, ...]:
    """Classes of a measured call, from the narrowest to the widest."""
    mask_class = "dense" if is_dense(row) else "sparse"
    return classes(mask_class, row.head_dim, row.tokens)


def _groups(row: Row) -> list[str]:
    """Groups that a row is scored in: by head dim and window, and all windows or dense rows of the head dim that was fitted."""
    kind = "window" if row.window else "dense"
    own = f"D{row.head_dim} {kind} {row.window}" if row.window else f"D{row.head_dim} {kind}"
    return [own, *([kind] if row.head_dim == 128 else []), "all"]


def _domain(rows: Sequence[Row]) -> Domain | None:
    if not rows:
        return None
    tokens = [row.tokens for row in rows]
    return Domain(head_dims=tuple(sorted({row.head_dim for row in rows})), fewest_tokens=min(tokens), most_tokens=max(tokens))


def residuals(errors: Sequence[float]) -> Residuals:
    """Summary of relative errors.

    >>> residuals([0.1, -0.3]).mape
    0.2
    """
    signed = np.array(errors)
    size = np.abs(signed)
    values = {
        "mape": size.mean(),
        "median": np.median(size),
        "p90": np.quantile(size, 0.9),
        "max": size.max(),
        "bias": signed.mean(),
    }
    return Residuals(n=len(signed), **{name: round(float(value), 5) for name, value in values.items()})
