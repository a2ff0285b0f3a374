"""simattn predicts how long a sparse-attention kernel takes on a GPU, and says where the promised speedup went.

    predict      time, speedup, bounds and waterfall of a pattern on a GPU
    compare      patterns on GPUs, ranked
    sweep        every point of a grid, a random sample or a search
    schedule     the tiles that a kernel visits under a pattern
    validate     predictions against measured runs
    load_gpu     a GPU by name, alias or TOML file
    UserError    raised, with one line, for a name or value that cannot be used

Everything else lives in the rooms below: facts, hwspecs, workloads, kernels, simulator, validation. Names here load on first
use, so that importing a room costs nothing but that room.

Examples
--------
>>> import simattn
>>> simattn.predict("radial", "b200").blocks.active
226056
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .api import Validation, load_gpu, validate
    from .comparison import compare
    from .facts import UserError
    from .simulator import Prediction, predict
    from .sweeps import sweep
    from .workloads import TileSchedule, schedule

__version__ = "0.1.0"

__all__ = [
    "Prediction",
    "TileSchedule",
    "UserError",
    "Validation",
    "__version__",
    "compare",
    "load_gpu",
    "predict",
    "schedule",
    "sweep",
    "validate",
]

_HOMES = {
    "Prediction": "simulator",
    "TileSchedule": "workloads",
    "UserError": "facts",
    "Validation": "api",
    "compare": "comparison",
    "load_gpu": "api",
    "predict": "simulator",
    "schedule": "workloads",
    "sweep": "sweeps",
    "validate": "api",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(f".{_HOMES[name]}", __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
