"""kernels: how it is computed. Published attention kernels as data.

profile      KernelProfile: tiles, masking, launch order and timing constants; the shipped profiles by name
program      loop programs: what a tile makes each group of warps do, on which unit and after what
calibration  what `simattn calibrate` found for a kernel on a GPU
tensor_core  how often a tensor instruction can start, and how long its result takes
"""

from .calibration import Calibration, Constants, Residuals, constants
from .profile import KernelProfile, Tile, candidates, kernels
from .program import KINDS, UNITS, Kind, LoopProgram, build, programs

__all__ = [
    "KINDS",
    "UNITS",
    "Calibration",
    "Constants",
    "KernelProfile",
    "Kind",
    "LoopProgram",
    "Residuals",
    "Tile",
    "build",
    "candidates",
    "constants",
    "kernels",
    "programs",
]
