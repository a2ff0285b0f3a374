"""A spec of the GPU at hand: what it says of itself, on top of the nearest shipped GPU."""

from __future__ import annotations

import csv
import re
import subprocess
from collections.abc import Callable, Sequence
from importlib.util import find_spec
from io import StringIO
from typing import Any, NamedTuple

from ..facts import UserError
from .registry import gpus
from .spec import GpuSpec


class DeviceFacts(NamedTuple):
    """What a GPU and its driver say; None where they do not."""

    name: str
    arch: str
    """`sm90`."""
    sm_count: int | None = None
    l2_bytes: int | None = None
    memory_bytes: int | None = None
    """What the driver leaves of the memory: somewhat less than the vendor names."""
    dram_gbps: float | None = None
    """Bus width times memory clock, in GB/s: the peak that the data sheet rounds."""
    clock_max_mhz: float | None = None
    power_limit_w: float | None = None
    pcie: tuple[int, int] | None = None
    """Generation and lanes of the host link."""


def detect() -> DeviceFacts:
    """The first GPU, by torch where it is installed, and by nvidia-smi.

    Raises
    ------
    UserError
        Neither sees a GPU.
    """
    facts = None
    if find_spec("torch") is not None:
        import torch

        if torch.cuda.is_available():
            facts = facts_of(torch.cuda.get_device_properties(0))
    return with_smi(facts)


def facts_of(properties: Any) -> DeviceFacts:
    """Facts from `torch.cuda.get_device_properties`; versions of torch differ in what they give.

    Examples
    --------
    >>> from types import SimpleNamespace
    >>> facts_of(SimpleNamespace(name="NVIDIA H200", major=9, minor=0, multi_processor_count=132)).arch
    'sm90'
    """
    khz, bits = getattr(properties, "memory_clock_rate", 0), getattr(properties, "memory_bus_width", 0)
    clock_khz = getattr(properties, "clock_rate", 0)
    return DeviceFacts(
        name=str(properties.name),
        arch=f"sm{properties.major}{properties.minor}",
        sm_count=getattr(properties, "multi_processor_count", None),
        l2_bytes=getattr(properties, "L2_cache_size", None) or None,
        memory_bytes=getattr(properties, "total_memory", None),
        dram_gbps=2 * khz * 1e3 * bits / 8 / 1e9 if khz and bits else None,  # two transfers a clock
        clock_max_mhz=clock_khz / 1e3 or None,
    )


_QUERY = ("name", "compute_cap", "memory.total", "clocks.max.sm", "power.limit", "pcie.link.gen.max", "pcie.link.width.max")


def _ask_smi() -> str:
    try:
        command = ["nvidia-smi", f"--query-gpu={','.join(_QUERY)}", "--format=csv,noheader,nounits"]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=30).stdout
    except (OSError, subprocess.SubprocessError):
        return ""


def with_smi(facts: DeviceFacts | None, ask: Callable[[], str] = _ask_smi) -> DeviceFacts:
    """Facts with what nvidia-smi adds to them; all that it knows where there are none.

    Raises
    ------
    UserError
        No GPU is seen.
    """
    rows = [[value.strip() for value in row] for row in csv.reader(StringIO(ask())) if len(row) == len(_QUERY)]
    if facts is not None:
        rows = [row for row in rows if row[0] == facts.name]
    if not rows:
        if facts is None:
            raise UserError("no NVIDIA GPU is seen, neither by torch nor by nvidia-smi")
        return facts
    name, capability, mib, clock, power, generation, lanes = rows[0]
    known = facts or DeviceFacts(name, f"sm{capability.replace('.', '')}")
    number = {key: _number(text) for key, text in (("mib", mib), ("clock", clock), ("power", power))}
    pcie = (_number(generation), _number(lanes))
    return known._replace(
        memory_bytes=known.memory_bytes or (int(number["mib"] * 2**20) if number["mib"] else None),
        clock_max_mhz=number["clock"] or known.clock_max_mhz,
        power_limit_w=number["power"],
        pcie=(int(pcie[0]), int(pcie[1])) if pcie[0] and pcie[1] else None,
    )


def _number(text: str) -> float | None:
    """A number, or None for `[N/A]` and the like."""
    try:
        return float(text)
    except ValueError:
        return None


def nearest(facts: DeviceFacts) -> str:
    """The shipped GPU that is nearest: of the same architecture, of the same model where there is one, then by SMs and memory.

    Raises
    ------
    UserError
        No shipped GPU has the architecture.

    Examples
    --------
    >>> nearest(DeviceFacts("NVIDIA H100 PCIe", "sm90", 114))
    'h100_pcie'
    """
    specs = [gpus.load(name) for name in gpus.names()]
    related = [spec for spec in specs if spec.arch == facts.arch]
    if not related:
        raise UserError(f"no shipped GPU has the architecture {facts.arch} of {facts.name}; known: {_archs(specs)}")
    words = _words(facts.name)
    models = {word for word in words if re.search(r"\d{2}", word)}

    def distance(spec: GpuSpec) -> tuple[bool, float, int]:
        own = _words(spec.title)
        size = abs((facts.sm_count or spec.chip.sm_count) / spec.chip.sm_count - 1)
        if facts.memory_bytes and spec.mem.dram.capacity_gib:
            size += abs(facts.memory_bytes / 2**30 / spec.mem.dram.capacity_gib - 1)
        return not models & own, size, -len(words & own)

    return min(related, key=distance).name


def _words(title: str) -> set[str]:
    return set(re.findall(r"[a-z0-9]+", title.lower())) - {"nvidia", "geforce"}


def _archs(specs: Sequence[GpuSpec]) -> str:
    return ", ".join(sorted({spec.arch for spec in specs}))


SAME = 0.05
"""Relative difference up to which a rounded number of the vendor stays: memory size and bandwidth."""


def spec_text(facts: DeviceFacts) -> str:
    """A spec file of the GPU: inherits from the nearest shipped one, gives what the device says, and names what it does not say.

    Raises
    ------
    UserError
        No shipped GPU is of that architecture.
    """
    parent = gpus.load(nearest(facts))
    found: dict[str, tuple[Any, str]] = {}
    for path, value in (
        ("chip.sm_count", facts.sm_count),
        ("chip.clock_max_mhz", facts.clock_max_mhz),
        ("mem.l2.mib", facts.l2_bytes / 2**20 if facts.l2_bytes else None),
        ("power.tdp_w", facts.power_limit_w),
    ):
        if value:
            found[path] = (round(value, 3), "as the driver reports")
    for name in ("clock_boost_mhz", "clock_sustained_mhz"):
        below = getattr(parent.chip, name)
        if facts.clock_max_mhz and below and below > facts.clock_max_mhz:
            found[f"chip.{name}"] = (facts.clock_max_mhz, f"that of {parent.name} is above the highest clock")
    if facts.dram_gbps and abs(facts.dram_gbps / parent.mem.dram.gbps - 1) > SAME:
        found["mem.dram.gbps"] = (round(facts.dram_gbps), "bus width times memory clock, as the driver reports")
    capacity = parent.mem.dram.capacity_gib
    if facts.memory_bytes and (capacity is None or abs(facts.memory_bytes / 2**30 / capacity - 1) > 2 * SAME):
        found["mem.dram.capacity_gib"] = (round(facts.memory_bytes / 2**30, 1), "what the driver leaves of it")
    host = parent.link.host if parent.link else None
    # A GPU on its processor's own link reports PCIe too.
    if facts.pcie and facts.pcie[0] in _PCIE_GBPS_A_LANE and (host is None or host.kind.startswith("pcie")):
        generation, lanes = facts.pcie
        found["link.host.kind"] = (f"pcie{generation} x{lanes}", "as the driver reports")
        found["link.host.gbps"] = (round(_PCIE_GBPS_A_LANE[generation] * lanes, 1), "of that generation and width")
    if facts.sm_count and facts.sm_count != parent.chip.sm_count:
        # Stated peaks of another number of SMs would contradict this one.
        for name in ("bf16_tflops", "fp8_tflops", "fp32_tflops"):
            stated = getattr(parent.check, name)
            if stated:
                scaled = round(stated * facts.sm_count / parent.chip.sm_count, 1)
                found[f"check.{name}"] = (scaled, f"that of {parent.name}, by SMs")
    return _toml(facts, parent, found)


_PCIE_GBPS_A_LANE = {3: 0.985, 4: 1.969, 5: 3.938, 6: 7.563}
"""GB/s a lane each way, before packet overhead."""


_COMPUTED = ("check.", "link.host.gbps", "mem.dram.gbps", "chip.clock_boost", "chip.clock_sustained")
"""Values that are worked out, not read."""


def _toml(facts: DeviceFacts, parent: GpuSpec, found: dict[str, tuple[Any, str]]) -> str:
    name = re.sub(r"[^a-z0-9]+", "_", facts.name.lower().replace("nvidia", "").replace("geforce", "")).strip("_")
    tables: dict[str, list[str]] = {}
    for path, (value, _) in found.items():
        table, _, key = path.rpartition(".")
        tables.setdefault(table, []).append(f"{key} = {_plain(value)}")
    lines = [f'inherits = "{parent.name}"', f'name = "{name}_detected"', f'title = "{facts.name} (detected)"', ""]
    for table, values in tables.items():
        lines += [f"[{table}]", *values, ""]
    lines.append("[meta]")
    for path, (_, note) in found.items():
        kind = "derived" if path.startswith(_COMPUTED) else "microbenchmark"
        lines.append(f'"{path}" = {{ kind = "{kind}", source = "device", note = "{note}" }}')
    unknown = [path for path, _, _ in parent.leaves() if path not in found]
    lines += ["", f"# Not said by the device, and so as in {parent.name}:"]
    lines += [f"#   {path}" for path in unknown]
    if facts.power_limit_w and parent.power and parent.power.tdp_w != facts.power_limit_w:
        lines.append(f"# The power limit is not that of {parent.name}: chip.clock_sustained_mhz needs a measurement.")
    return "\n".join(lines) + "\n"


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return f'"{value}"'
    return f"{value:g}" if isinstance(value, float) and value < 1e5 else str(value)
