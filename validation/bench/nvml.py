"""Clock and power of a GPU while it works, from the driver's own library (NVML), which every driver brings along."""

from __future__ import annotations

import ctypes
from typing import Any

SM_CLOCK = 1
"""NVML_CLOCK_SM."""


class Nvml:
    """One GPU seen through NVML; every reading is None where the library or the GPU gives none.

    Parameters
    ----------
    uuid : str
        `GPU-...`, as CUDA and nvidia-smi name it; CUDA's own numbering differs from the driver's.
    library : object, optional
        Stands in for the library in tests.
    """

    def __init__(self, uuid: str, library: Any = None) -> None:
        self._library, self._handle = None, ctypes.c_void_p()
        try:
            found = library or ctypes.CDLL("libnvidia-ml.so.1")
            if found.nvmlInit_v2() == 0 and found.nvmlDeviceGetHandleByUUID(uuid.encode(), ctypes.byref(self._handle)) == 0:
                self._library = found
        except (OSError, AttributeError):
            pass

    def _read(self, name: str, *arguments: Any) -> int | None:
        value = ctypes.c_uint()
        if self._library is None:
            return None
        done = getattr(self._library, name)(self._handle, *arguments, ctypes.byref(value))
        return value.value if done == 0 else None

    def clock_mhz(self) -> int | None:
        """SM clock now, in MHz."""
        return self._read("nvmlDeviceGetClockInfo", SM_CLOCK)

    def clock_max_mhz(self) -> int | None:
        """Highest SM clock, in MHz."""
        return self._read("nvmlDeviceGetMaxClockInfo", SM_CLOCK)

    def power_w(self) -> float | None:
        """Power drawn (a mean over some time, on most GPUs), in W."""
        milliwatts = self._read("nvmlDeviceGetPowerUsage")
        return None if milliwatts is None else milliwatts / 1e3

    def power_limit_w(self) -> float | None:
        """Power limit in force, in W."""
        milliwatts = self._read("nvmlDeviceGetEnforcedPowerLimit")
        return None if milliwatts is None else milliwatts / 1e3

    def driver(self) -> str | None:
        """Version of the driver."""
        text = ctypes.create_string_buffer(96)
        if self._library is None or self._library.nvmlSystemGetDriverVersion(text, ctypes.c_uint(96)) != 0:
            return None
        return text.value.decode()
