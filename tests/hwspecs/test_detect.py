"""Specs of the GPU at hand, from what made-up GPUs say of themselves."""

from types import SimpleNamespace

import pytest
from simattn.facts import UserError
from simattn.hwspecs import check, gpus
from simattn.hwspecs.detect import DeviceFacts, facts_of, nearest, spec_text, with_smi

H200 = SimpleNamespace(
    name="NVIDIA H200", major=9, minor=0, multi_processor_count=132, L2_cache_size=60 * 2**20, total_memory=150_109_880_320,
    memory_clock_rate=3_201_000, memory_bus_width=6144, clock_rate=1_980_000,
)  # fmt: skip
SMI = "NVIDIA H200, 9.0, 143771, 1980, 700.00, 5, 16\n"


@pytest.mark.parametrize(
    ("name", "arch", "sms", "gib", "expected"),
    [
        ("NVIDIA H200", "sm90", 132, 139.8, "h200_sxm"),
        ("NVIDIA H100 80GB HBM3", "sm90", 132, 79.2, "h100_sxm"),
        ("NVIDIA H100 PCIe", "sm90", 114, 79.2, "h100_pcie"),
        ("NVIDIA A100-SXM4-40GB", "sm80", 108, 39.4, "a100_sxm_40gb"),
        ("NVIDIA A100-SXM4-80GB", "sm80", 108, 79.2, "a100_sxm_80gb"),
        ("NVIDIA GeForce RTX 4090", "sm89", 128, 23.5, "rtx_4090"),
        ("NVIDIA L40S", "sm89", 142, 44.4, "l40s"),
        ("NVIDIA B200", "sm100", 148, 178.4, "b200_sxm"),
        ("NVIDIA GH200 480GB", "sm90", 132, 94.5, "gh200"),
        ("NVIDIA GeForce RTX 4080", "sm89", 76, 15.6, "rtx_4090"),
    ],
)
def test_nearest_relative(name, arch, sms, gib, expected):
    assert nearest(DeviceFacts(name, arch, sms, memory_bytes=int(gib * 2**30))) == expected


def test_facts_of_torch_and_smi():
    facts = with_smi(facts_of(H200), lambda: SMI)
    assert (facts.arch, facts.sm_count, facts.clock_max_mhz, facts.power_limit_w, facts.pcie) == ("sm90", 132, 1980, 700, (5, 16))
    assert facts.dram_gbps == pytest.approx(4917, abs=1)
    assert with_smi(None, lambda: SMI).memory_bytes == 143771 * 2**20
    assert with_smi(facts_of(H200), lambda: "").power_limit_w is None
    assert with_smi(None, lambda: SMI.replace("700.00", "[N/A]")).power_limit_w is None
    with pytest.raises(UserError, match="no NVIDIA GPU"):
        with_smi(None, lambda: "")


def written(tmp_path, facts):
    path = tmp_path / "mine.toml"
    path.write_text(spec_text(facts))
    return gpus.load(str(path)), path.read_text()


def test_a_known_gpu_stays_what_it_is(tmp_path):
    spec, text = written(tmp_path, with_smi(facts_of(H200), lambda: SMI))
    shipped = gpus.load("h200")
    assert (spec.chip.sm_count, spec.mem.l2.mib, spec.power.tdp_w) == (132, 60, 700)
    # The data sheet's rounded numbers stay where the device's are near.
    assert (spec.mem.dram.gbps, spec.mem.dram.capacity_gib) == (shipped.mem.dram.gbps, shipped.mem.dram.capacity_gib)
    assert "# Not said by the device" in text
    assert "#   tensor.bf16_f32" in text


def test_a_relative_is_consistent(tmp_path):
    facts = DeviceFacts("NVIDIA GeForce RTX 4080", "sm89", 76, 64 * 2**20, int(15.6 * 2**30), 716.8, 2505.0, 320.0, (4, 16))
    spec, text = written(tmp_path, facts)
    assert (spec.chip.sm_count, spec.mem.dram.gbps, spec.mem.dram.capacity_gib, spec.power.tdp_w) == (76, 717, 15.6, 320)
    assert spec.chip.clock_boost_mhz == 2505
    assert not [finding for finding in check(spec) if finding.status in ("off", "unsourced")]
    assert "chip.clock_sustained_mhz" in text


def test_no_relative():
    with pytest.raises(UserError, match="sm70"):
        nearest(DeviceFacts("Tesla V100-SXM2-32GB", "sm70", 80))
