"""Calibration on tables that the simulator itself made: the constants come back, and no scoring row is read."""

from math import exp

import msgspec
import numpy as np
import pytest
from simattn.hwspecs import gpus
from simattn.kernels import kernels
from simattn.kernels.calibration import constants, with_leaves
from simattn.validation import Measurement, calibrate, calibration_page, compare, role, shipped_calibrations, write_calibration
from simattn.validation.fit import Case, Model, parameters

from simattn import UserError

TABLE = "aiconfigurator/h100_sxm/test/1"
TRUE_KERNEL = {"timing.contention": 0.3, "timing.handoff_cycles": 120.0, "timing.prologue_cycles": 6000.0}
TRUE_GPU = {"chip.clock_sustained_mhz": 1380.0, "launch.kernel_us": 6.0, "launch.token_cta_us": 3.5}


def measurement(batch, tokens, heads, kv_heads, head_dim=128, window=0):
    shape = f"b{batch}-n{tokens}-h{heads}-kv{kv_heads}-d{head_dim}-w{window}"
    return Measurement(
        id=f"{TABLE}/{shape}",
        table=TABLE,
        gpu="h100_sxm",
        kernel="vllm/vllm_flash_attn_fa3",
        phase="prefill",
        dtype="bf16",
        latency_ms=1.0,
        batch=batch,
        q_heads=heads,
        kv_heads=kv_heads,
        seq_q=tokens,
        seq_kv=tokens,
        head_dim=head_dim,
        pattern="sliding_window" if window else "causal",
        pattern_params={"window": window} if window else {},
    )


def log_ratio(run, profile, spec):
    """Logarithm of predicted over measured time."""
    (found,) = Model([Case.of(run)], profile, spec, []).log_ratios(np.array([]))
    return float(found)


def table():
    """Runs as a machine with other constants would have measured them."""
    pytest.importorskip("scipy")
    shapes = [(b, n, h, kv) for b in (1, 8) for n in (512, 1024, 2048, 4096, 8192, 16384) for h, kv in ((8, 2), (16, 4), (32, 8))]
    runs = [measurement(*shape) for shape in shapes]
    runs += [measurement(b, n, 16, 4, window=128) for b in (1, 4) for n in (2048, 8192)]
    profile = with_leaves(kernels.load("fa3_paged"), TRUE_KERNEL)
    spec = with_leaves(gpus.load("h100"), TRUE_GPU)
    made = []
    for run in runs:
        made.append(msgspec.structs.replace(run, latency_ms=exp(log_ratio(run, profile, spec))))
    return made


@pytest.fixture(scope="module")
def found():
    runs = table()
    return runs, calibrate(runs, most_fitted=24)


def test_constants_come_back(found):
    _, c = found
    assert c.fit.mape < 0.01
    assert c.kernel_parameters["timing.contention"] == pytest.approx(0.3, abs=0.1)
    # The settling clock cannot be told from the settling time here: no run is long. The file says so, or has it right.
    clock = "chip.clock_sustained_mhz"
    assert clock in c.unidentified or c.gpu_parameters[clock] == pytest.approx(1380, rel=0.05)
    assert c.environment["launch.kernel_us"] == pytest.approx(6, rel=0.2)
    assert c.score["window"].mape < 0.05
    assert c.roofline["window"].mape > c.score["window"].mape


def test_it_says_what_was_measured_and_how_far_off_it_is(found):
    _, c = found
    assert c.domain.head_dims == (128,)
    assert (c.domain.fewest_tokens, c.domain.most_tokens) == (512, 16384)
    assert c.bands["all"].low <= c.bands["all"].high


def test_a_process_sees_what_it_has_just_calibrated(found, tmp_path, monkeypatch):
    runs, c = found
    monkeypatch.setenv("SIMATTN_CALIBRATIONS", str(tmp_path))
    before = compare(runs[:1])[0].predicted_ms
    write_calibration(msgspec.structs.replace(c, kernel_parameters={"timing.contention": 1.0}), tmp_path)
    middle = compare(runs[:1])[0].predicted_ms
    write_calibration(msgspec.structs.replace(c, kernel_parameters={"timing.contention": 0.0}), tmp_path)
    assert len({before, middle, compare(runs[:1])[0].predicted_ms}) == 3


def test_the_environment_is_not_simulated_anew():
    runs = [msgspec.structs.replace(measurement(1, n, 8, 2), latency_ms=1.0) for n in (2048, 4096)]
    profile, spec = kernels.load("fa3_paged"), gpus.load("h100")
    model = Model([Case.of(run) for run in runs], profile, spec, parameters(profile, spec))
    start = model.start()
    moved = start.copy()
    moved[-3:] += 0.1
    model.log_ratios(start)
    known = dict(model._known)
    fast = model.log_ratios(moved)
    assert model._known == known
    slow = Model(model.cases, profile, spec, model.free)
    assert fast == pytest.approx(slow.log_ratios(moved), abs=1e-12)


def test_no_scoring_row_is_read(found):
    runs, c = found
    spoiled = [run if role(run) == "fit" else msgspec.structs.replace(run, latency_ms=1e3 * run.latency_ms) for run in runs]
    again = calibrate(spoiled, most_fitted=24)
    parts = ("kernel_parameters", "gpu_parameters", "environment", "fit")
    assert [getattr(again, name) for name in parts] == [getattr(c, name) for name in parts]
    assert again.score != c.score


def test_what_cannot_be_calibrated_is_said():
    with pytest.raises(UserError, match="one GPU, kernel and table"):
        calibrate([])
    window = msgspec.structs.replace(measurement(1, 2048, 8, 2, window=128), latency_ms=1.0)
    with pytest.raises(UserError, match="no row may be fitted"):
        calibrate([window])


def test_few_rows_pin_down_few_constants():
    pytest.importorskip("scipy")
    fit = next(run for n in range(512, 9000, 512) if role(run := measurement(1, n, 8, 2)) == "fit")
    assert sum(map(len, (lambda c: (c.kernel_parameters, c.gpu_parameters, c.environment))(calibrate([fit])))) == 1


def test_parameters_are_few_and_bounded():
    for name in ("fa2_split", "fa3_paged", "trtllm_gen", "triton", "natten_hopper"):
        profile = kernels.load(name)
        spec = gpus.load({"fa2_split": "a100", "triton": "a100", "trtllm_gen": "b200"}.get(name, "h100"))
        free = parameters(profile, spec)
        assert len(free) <= 10
        assert all(p.low < p.high for p in free)
        for p in free:
            with_leaves(profile if p.owner == "kernel" else spec, {p.path: p.high})


@pytest.mark.parametrize("c", shipped_calibrations(), ids=lambda c: f"{c.kernel}@{c.gpu}")
def test_shipped_calibrations_fit_what_is_there(c):
    profile, spec = kernels.load(c.kernel), gpus.load(c.gpu)
    assert spec.arch in profile.archs
    known = {p.path: p for p in parameters(profile, spec)}
    for path, value in (c.kernel_parameters | c.gpu_parameters | c.environment).items():
        assert known[path].low <= value <= known[path].high * (1 + 1e-4)
    assert c.data in calibration_page()


PROMISED = {
    "fa3_paged@h100_sxm": {"D128 dense": 4.5, "D128 window 128": 5.0, "D192 window 128": 5.0, "D256 window 1024": 7.0},
    "trtllm_gen@b200_sxm": {"D128 dense": 3.7, "D128 window 128": 5.1, "D256 dense": 9.0, "D256 window 1024": 5.0},
    "natten_hopper@h100_sxm": {"D128 dense": 10.0},
}
"""Mean errors in percent on rows that were not fitted."""


MISSED = pytest.mark.xfail(strict=True, reason="14.2 % here since the clock falls after a while, not at once")


@pytest.mark.parametrize("name", [pytest.param(name, marks=MISSED if name.startswith("natten") else ()) for name in PROMISED])
def test_scores_of_shipped_calibrations(name):
    (c,) = (c for c in shipped_calibrations() if f"{c.kernel}@{c.gpu}" == name)
    assert {group: most for group, most in PROMISED[name].items() if 100 * c.score[group].mape > most} == {}
    assert len(c.kernel_parameters | c.gpu_parameters | c.environment) <= 10


def test_what_is_fitted_is_what_is_compared():
    run = measurement(2, 1024, 16, 16)
    known = constants(kernels.load("fa3_paged"), gpus.load("h100"))
    (row,) = compare([run])
    fitted = exp(log_ratio(run, known.profile, known.spec)) * run.latency_ms
    assert row.predicted_ms == pytest.approx(fitted, rel=1e-9)
