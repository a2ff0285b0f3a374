"""simulator: how long it takes, and why.

question    what is asked: pattern, problem, layout
setting     how a call is run, and how closely it is simulated
choice      which kernel runs it, in which tiles
machine     every visit of every CTA on every SM, cycle by cycle, with L2 and DRAM
pipeline    one SM: how fast visits follow each other, and what a CTA costs besides
launch      which rows become CTAs, in which order, with which masks
split       into how many parts keys are divided, and the kernel that merges them
memory      what L2 and DRAM have to move
side        what runs beside the attention kernels
visit       what a visit costs at least
intervals   the two classic bounds of a loop
trace       what happened, op by op, as a Chrome trace
device      all SMs: CTAs of known cost dispatched
clock       the clock under load
waterfall   the ladder of machines that all of these are put on
baseline    the dense call, by the fastest kernel
bounds      closed forms
band        how far such predictions were from measured times
prediction  the answer
predict     simulates a plan and puts the answer together
graph       tasks that wait for each other: a layer, a step, a ring
system      streams, copy engines and links that work side by side
e2e         a whole model, every layer and step
decode      decode steps over a growing context
offload     decoding with keys and values in host memory
collectives  messages between GPUs
ring        attention over a sequence that several GPUs share
"""

from .bounds import Bounds, bounds
from .choice import KernelChoice, choose_kernel, with_tile
from .clock import Repeats
from .predict import Run, predict, simulate
from .prediction import Prediction
from .question import Question, question
from .setting import Fidelity, Setting, mask_or_plan
from .waterfall import STAGES, attention_time

__all__ = [
    "STAGES",
    "Bounds",
    "Fidelity",
    "KernelChoice",
    "Prediction",
    "Question",
    "Repeats",
    "Run",
    "Setting",
    "attention_time",
    "bounds",
    "choose_kernel",
    "mask_or_plan",
    "predict",
    "question",
    "simulate",
    "with_tile",
]
