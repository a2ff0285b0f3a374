import msgspec
import pytest
from simattn.hwspecs import gpus
from simattn.kernels import Calibration, Residuals, constants, kernels
from simattn.kernels.calibration import all_calibrations, environment_of, file_name, leaf, with_leaves

from simattn import UserError

NONE = Residuals(n=1, mape=0.04, median=0.04, p90=0.1, max=0.1, bias=0.0)


def write(folder, kernel, gpu, kernel_values=None, gpu_values=None, rows=100, fit=NONE):
    made = Calibration(
        kernel=kernel,
        gpu=gpu,
        kernel_parameters=kernel_values or {},
        gpu_parameters=gpu_values or {},
        environment={"launch.kernel_us": 9.0},
        data="table",
        rows=rows,
        version="0",
        spec_hash="0",
        fit=fit,
        score={"all": NONE},
        roofline={},
    )
    (folder / file_name(kernel, gpu)).write_bytes(msgspec.json.encode(made))


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("SIMATTN_CALIBRATIONS", str(tmp_path))
    return tmp_path


def test_a_users_calibration_goes_before_ours_and_under_what_is_set_by_hand(folder):
    write(folder, "fa3", "h100_sxm", {"timing.contention": 0.25}, {"chip.clock_sustained_mhz": 1500.0}, rows=10**6)
    fa3, h100 = kernels.load("fa3"), gpus.load("h100")
    found = constants(fa3, h100)
    assert (found.calibration.rows, found.borrowed) == (10**6, None)
    assert found.profile.timing.contention == 0.25
    assert found.spec.chip.clock_sustained_mhz == 1500
    assert found.spec.launch.kernel_us == h100.launch.kernel_us  # the framework's, not the kernel's
    by_hand = gpus.load("h100", {"chip": {"clock_sustained_mhz": 1600}})
    own = kernels.load("fa3", {"timing": {"contention": 0.1}})
    assert constants(own, by_hand).profile.timing.contention == 0.1
    assert constants(own, by_hand).spec.chip.clock_sustained_mhz == 1600


def test_a_kernel_without_one_borrows_from_its_nearest_relative(folder):
    many = 10**6
    write(folder, "fa3_paged", "h100_sxm", {"timing.contention": 0.3}, {"chip.clock_sustained_mhz": 1500.0}, rows=many)
    write(folder, "trtllm_gen", "b200_sxm", {"timing.handoff_cycles": 1.0}, rows=many)
    here = constants(kernels.load("cudnn_hopper"), gpus.load("h100"))
    assert (here.calibration, here.borrowed.kernel) == (None, "fa3_paged")
    assert (here.profile.timing.contention, here.spec.chip.clock_sustained_mhz) == (0.3, 1500)
    # FlashAttention-4's timing is known from its paper.
    assert constants(kernels.load("fa4"), gpus.load("b200")).profile == kernels.load("fa4")
    assert constants(kernels.load("cudnn_blackwell"), gpus.load("b200")).profile.timing.handoff_cycles == 1
    assert constants(kernels.load("triton"), gpus.load("a100")).borrowed is None


def test_what_misses_its_own_rows_is_not_lent_to_other_kernels(folder):
    poor = msgspec.structs.replace(NONE, mape=0.07)
    write(folder, "fa2_split", "a100_sxm_80gb", {"timing.contention": 0.3}, rows=10**6, fit=poor)
    a100 = gpus.load("a100")
    assert constants(kernels.load("fa2_split"), a100).profile.timing.contention == 0.3
    assert constants(kernels.load("fa2"), a100).borrowed is None
    write(folder, "fa2_split", "a100_sxm_80gb", {"timing.contention": 0.3}, rows=10**6)
    assert constants(kernels.load("fa2"), a100).borrowed.kernel == "fa2_split"


def test_on_another_gpu_what_belongs_to_the_kernel_goes_along(folder):
    values, of_gpu = {"timing.contention": 0.3}, {"chip.clock_sustained_mhz": 1500.0, "eff.dram_read": 0.55}
    write(folder, "fa3_paged", "h100_sxm", values, of_gpu, rows=10**6)
    write(folder, "fa2_split", "a100_sxm_80gb", {"timing.iteration_cycles.sm80": 77.0}, of_gpu, rows=10**6)
    known = [c for c in all_calibrations() if c.gpu in ("h100_sxm", "a100_sxm_80gb")]
    h200, rtx = gpus.load("h200"), gpus.load("rtx_pro_6000")
    near = constants(kernels.load("fa3_paged"), h200, known)
    assert (near.calibration, near.borrowed.gpu) == (None, "h100_sxm")
    # Efficiencies of the memory hold within an architecture, clocks are each chip's own.
    assert (near.profile.timing.contention, near.spec.eff.dram_read) == (0.3, 0.55)
    assert near.spec.chip == h200.chip
    # A kernel takes from itself on another generation, and nothing of that GPU.
    far = constants(kernels.load("fa2_split"), rtx, known)
    assert far.profile.timing.iteration_cycles["sm120"] == 77
    assert far.spec == rtx


def test_one_of_few_rows_takes_the_rest_from_its_relative(folder):
    write(folder, "fa3_paged", "h100_sxm", {"timing.contention": 0.3, "timing.prologue_cycles": 5000.0}, rows=10**6)
    write(folder, "natten_hopper", "h100_sxm", {"timing.contention": 0.6}, rows=1)
    timing = constants(kernels.load("natten_hopper"), gpus.load("h100")).profile.timing
    assert (timing.contention, timing.prologue_cycles) == (0.6, 5000)
    others = [c for c in all_calibrations() if c.kernel != "natten_hopper"]
    without = constants(kernels.load("natten_hopper"), gpus.load("h100"), others)
    assert without.profile.timing.contention == 0.3


def test_the_environment_belongs_to_its_table(folder):
    write(folder, "fa3_paged", "h100_sxm", rows=10**6)
    h100 = gpus.load("h100")
    assert environment_of("table", "fa3_paged", h100).launch.kernel_us == 9
    assert environment_of("another table", "fa3_paged", h100) == h100


def test_the_environment_of_a_framework_holds_for_its_other_tables():
    known = [c for c in all_calibrations() if (c.kernel, c.gpu) in (("fa3_paged", "h100_sxm"), ("fa2_split", "a100_sxm_80gb"))]
    fa3 = next(c for c in known if c.kernel == "fa3_paged")
    h200, rtx = gpus.load("h200"), gpus.load("rtx_pro_6000")
    for spec in (h200, rtx):
        found = environment_of(f"aiconfigurator/{spec.name}/vllm/0.24.0/decode", "any", spec, known)
        assert found.launch.kernel_us == fa3.environment["launch.kernel_us"]
    assert environment_of("aiconfigurator/h100_sxm/sglang/0.5.14", "fa3_paged", h200, known) == h200


def test_a_broken_file_is_named(folder):
    (folder / "x.json").write_text("{}")
    with pytest.raises(UserError, match=r"x\.json"):
        constants(kernels.load("fa3"), gpus.load("h100"))


def test_leaves_of_tables_in_tables():
    fa2 = kernels.load("fa2")
    changed = with_leaves(fa2, {"timing.iteration_cycles.sm80": 7.0, "timing.contention": 0.5})
    assert leaf(changed, "timing.iteration_cycles.sm80") == 7
    assert changed.timing.iteration_cycles["sm120"] == fa2.timing.iteration_cycles["sm120"]
    assert leaf(fa2, "timing.iteration_cycles.none") is None
