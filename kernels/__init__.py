"""kernels: how it is computed. Published attention kernels as data.

profile      KernelProfile: tiles, masking, launch order and timing constants; the shipped profiles by name
program      loop programs: what a tile makes each group of warps do, on which unit and after what
work         what the ops of a loop program do: cycles of each unit and bytes
calibration  what `simattn calibrate` found for a kernel on a GPU
band         how far measured times lie from predicted ones, by class of call
tensor_core  how often a tensor instruction can start, and how long its result takes
source       what to compile: a bundled Triton kernel, or a function of a user's file
compiled     the compiled kernel, read without a GPU: registers, occupancy, cycles of a tile on each unit
elementwise  instructions of PyTorch's elementwise kernels that compute the address of each value
disassembly  instructions of a cubin, its control flow, and the loop over keys
pipes        which unit an instruction keeps busy, and for how long
compiled_profile  the profile of a kernel that is known by its code alone
counts       the compiled counts that ship as data
"""

from .calibration import Calibration, Constants, Residuals, constants
from .profile import KernelProfile, Split, Tile, candidates, kernels
from .program import LoopProgram, build, programs
from .work import KINDS, UNITS, Kind

__all__ = [
    "KINDS",
    "UNITS",
    "Calibration",
    "Constants",
    "KernelProfile",
    "Kind",
    "LoopProgram",
    "Residuals",
    "Split",
    "Tile",
    "build",
    "candidates",
    "constants",
    "kernels",
    "programs",
]
