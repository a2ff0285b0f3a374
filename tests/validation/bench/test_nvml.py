"""NVML, by a library that is made up."""

import ctypes
from types import SimpleNamespace

from simattn.validation.bench.nvml import Nvml


def put(pointer, value):
    pointer._obj.value = value
    return 0


def library(**changes):
    functions = {
        "nvmlInit_v2": lambda: 0,
        "nvmlDeviceGetHandleByUUID": lambda uuid, handle: 0 if uuid == b"GPU-1" else 6,
        "nvmlDeviceGetClockInfo": lambda handle, which, out: put(out, 1755),
        "nvmlDeviceGetMaxClockInfo": lambda handle, which, out: put(out, 1980),
        "nvmlDeviceGetPowerUsage": lambda handle, out: put(out, 512_000),
        "nvmlDeviceGetEnforcedPowerLimit": lambda handle, out: 3,
        "nvmlSystemGetDriverVersion": lambda text, size: ctypes.memmove(text, b"580.1\0", 6) and 0,
    }
    return SimpleNamespace(**{**functions, **changes})


def test_readings():
    nvml = Nvml("GPU-1", library())
    assert (nvml.clock_mhz(), nvml.clock_max_mhz(), nvml.power_w(), nvml.driver()) == (1755, 1980, 512.0, "580.1")
    assert nvml.power_limit_w() is None


def test_nothing_where_there_is_nothing():
    for nvml in (Nvml("GPU-2", library()), Nvml("GPU-1", SimpleNamespace())):
        assert (nvml.clock_mhz(), nvml.power_w(), nvml.driver()) == (None, None, None)
