"""Kernels on Triton's interpreter: it has to be asked for before triton is imported anywhere in the process."""

import os

os.environ["TRITON_INTERPRET"] = "1"
