"""The page of all calibrations that ship with the package, written from their files."""

from __future__ import annotations

from pathlib import Path

import msgspec

from .. import kernels as kernels_room
from ..kernels import Calibration, Residuals

HEADER = """\
# Calibrations

Written by `simattn calibrate --page docs/calibrations.md`; do not edit by hand.

Each file of `kernels/calibrations/` holds a few constants of one kernel on one GPU, fitted by `simattn calibrate` to a fixed
random choice of the fit set: a half, by hash, of the dense causal calls of head dim 128 of one measured table (of NATTEN, which
has no dense rows, one run that needs no mask). All other rows are scored and never fitted: the other half, windows, other head
dims. Errors are predicted over measured time, less one, in percent; bias is signed, negative where we are too fast. Beside them
stands a roofline whose three constants were fitted to the same rows. Constants of the environment (launch, KV-cache write) belong
to the framework that made the calls.
"""


def shipped_calibrations() -> list[Calibration]:
    """The calibrations that ship with the package."""
    folder = Path(str(kernels_room.__file__)).parent / "calibrations"
    return [msgspec.json.decode(path.read_bytes(), type=Calibration) for path in sorted(folder.glob("*.json"))]


def calibration_page() -> str:
    """The page, in Markdown."""
    return "\n".join([HEADER, *(_section(c) for c in shipped_calibrations())])


def _section(c: Calibration) -> str:
    values = c.kernel_parameters | c.gpu_parameters | c.environment
    lines = [
        f"## {c.kernel} on {c.gpu}\n",
        f"Table `{c.data}`, {c.rows} rows fitted, {len(values)} constants, simattn {c.version}, spec {c.spec_hash}.\n",
        "| constant | value | |",
        "|---|---:|---|",
        *(f"| `{name}` | {value:g} | {'not identified' if name in c.unidentified else ''} |" for name, value in values.items()),
        "",
        "| rows | n | MAPE | median | p90 | max | bias | roofline MAPE | p90 |",
        "|---|---:|---:|---:|---:|---:|---:|---:|---:|",
        _line("fitted", c.fit, None),
        *(_line(name, r, c.roofline.get(name)) for name, r in c.score.items()),
        "",
    ]
    return "\n".join(lines)


def _line(name: str, r: Residuals, naive: Residuals | None) -> str:
    ours = " | ".join(f"{100 * x:.1f}" for x in (r.mape, r.median, r.p90, r.max))
    beside = f"{100 * naive.mape:.1f} | {100 * naive.p90:.1f}" if naive else " | "
    return f"| {name} | {r.n} | {ours} | {100 * r.bias:+.1f} | {beside} |"
