"""The machine that measures, from a torch that is made up."""

import sys
from types import SimpleNamespace

import pytest
from simattn.facts import UserError
from simattn.validation.bench import machine
from simattn.validation.bench.machine import find_machine
from simattn.validation.bench.timer import DeviceTimer


@pytest.fixture
def torch_with(monkeypatch):
    def make(properties):
        cuda = SimpleNamespace(is_available=lambda: properties is not None, get_device_properties=lambda device: properties)
        torch = SimpleNamespace(cuda=cuda, version=SimpleNamespace(cuda="13.0"))
        monkeypatch.setitem(sys.modules, "torch", torch)
        monkeypatch.setattr(machine, "find_spec", lambda name: True)
        monkeypatch.setattr(machine, "_versions", lambda: {"torch": "2", "triton": "3", "simattn": "0"})

    return make


def test_a_gpu(torch_with):
    torch_with(
        SimpleNamespace(
            name="NVIDIA H100 PCIe",
            major=9,
            minor=0,
            multi_processor_count=114,
            L2_cache_size=50 * 2**20,
            total_memory=80 * 2**30,
            uuid="1-2-3",
        )
    )
    found = find_machine()
    assert (found.gpu, found.device, found.sm_count, found.l2_bytes, found.table) == (
        "h100_pcie", "cuda", 114, 50 * 2**20, "simattn-h100_pcie",
    )  # fmt: skip
    assert isinstance(found.timer, DeviceTimer)
    assert found.environment["gpu_name"] == "NVIDIA H100 PCIe"
    assert not found.interpreted


def test_no_gpu(torch_with, monkeypatch):
    torch_with(None)
    with pytest.raises(UserError, match="--dry-run"):
        find_machine()
    monkeypatch.delitem(sys.modules, "triton", raising=False)
    monkeypatch.setenv("TRITON_INTERPRET", "0")
    found = find_machine(tiny=True)
    assert (found.interpreted, found.device, found.gpu) == (True, "cpu", "cpu-interpreter")


def test_no_torch(monkeypatch):
    monkeypatch.setattr(machine, "find_spec", lambda name: None)
    with pytest.raises(UserError, match=r"needs torch and triton: pip install 'simattn\[kernels\]'"):
        find_machine()
