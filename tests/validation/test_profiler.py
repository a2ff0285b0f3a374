import gzip
import json

import pytest
from simattn.validation import compare, read_runs
from simattn.validation.sources.profiler import kernel_of

from simattn import UserError

FA2 = "void flash::flash_fwd_kernel<Flash_fwd_kernel_traits<128, 128, 64, 4>>(flash::Flash_fwd_params)"
CALL = {
    "gpu": "a100",
    "batch": 1,
    "q_heads": 32,
    "kv_heads": 8,
    "seq_q": 8192,
    "seq_kv": 8192,
    "head_dim": 128,
    "pattern": "causal",
}


def trace(times, name=FA2):
    events = [{"ph": "X", "cat": "kernel", "name": name, "ts": 1.5 * n, "dur": t, "args": {}} for n, t in enumerate(times)]
    other = [
        {"ph": "X", "cat": "cpu_op", "name": "aten::mm", "dur": 9},
        {"ph": "M", "name": "process_name", "args": {"name": "x"}},
    ]
    return json.dumps({"traceEvents": events + other + [{"cat": "kernel", "name": "ampere_bf16_gemm", "dur": 5.0}]})


def test_a_trace_gives_kernel_and_median_time(tmp_path):
    path = tmp_path / "trace.json"
    path.write_text(trace([3000.0, 3100.0, 9000.0]))
    (run,) = read_runs(path, CALL)
    assert (run.kernel, run.latency_ms, run.gpu) == ("fa2", 3.1, "a100")
    (row,) = compare([run])
    assert row.skipped is None
    assert row.predicted_ms == pytest.approx(4.5, rel=0.5)
    packed = tmp_path / "trace.json.gz"
    packed.write_bytes(gzip.compress(path.read_bytes()))
    assert read_runs(packed, CALL)[0].latency_ms == 3.1


def test_without_a_shape_it_says_so(tmp_path):
    path = tmp_path / "trace.json"
    path.write_text(trace([3000.0]))
    (row,) = compare(read_runs(path))
    assert "a profile names kernel and time only: give the call with --set gpu=" in row.skipped


LONG = """==PROF== Connected to process 1
"ID","Process ID","Kernel Name","Metric Name","Metric Unit","Metric Value"
"0","1","{name}","Duration","us","3,100.5"
"1","1","{name}","gpu__time_duration.sum","nsecond","3000500"
"2","1","{name}","DRAM Throughput","%","12"
"""
WIDE = """"ID","Kernel Name","gpu__time_duration.sum","sm__cycles"
"","","ms",""
"0","{name}","3.1","7"
"""


@pytest.mark.parametrize(("text", "ms"), [(LONG, 3.0505), (WIDE, 3.1)])
def test_both_forms_of_ncu(tmp_path, text, ms):
    path = tmp_path / "report.csv"
    path.write_text(text.format(name=FA2))
    (run,) = read_runs(path, CALL)
    assert run.latency_ms == pytest.approx(ms)


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("a.json", "{}", "no Chrome trace"),
        ("a.json", trace([1.0], name="gemm"), "none of its 2 kernels is known to be attention"),
        ("a.csv", "a,b\n1,2\n", "has no column Kernel Name"),
        ("a.csv", '"ID","Kernel Name","cycles"\n"0","x","3"\n', "has no duration"),
        ("a.csv", LONG.format(name=FA2).replace("3,100.5", "n/a"), "expected a time, got 'n/a'"),
    ],
)
def test_other_files_are_refused_in_one_line(tmp_path, name, text, why):
    path = tmp_path / name
    path.write_text(text)
    with pytest.raises(UserError, match=why):
        read_runs(path, CALL)
    with pytest.raises(UserError, match="cannot read"):
        read_runs(tmp_path / "none.json")


def test_fields_are_checked(tmp_path):
    path = tmp_path / "trace.json"
    path.write_text(trace([3000.0]))
    with pytest.raises(UserError, match=r"--set: .*int"):
        read_runs(path, {**CALL, "batch": "many"})


@pytest.mark.parametrize(
    ("name", "kernel"),
    [
        ("void flash::flash_fwd_splitkv_kernel<Flash_fwd_kernel_traits<128>>(x)", "fa2_split"),
        ("void cutlass::device_kernel<flash::enable_sm90_or_later<flash::FlashAttnFwdSm90<flash::CollectiveMainloop>>>", "fa3"),
        ("cudnn_generated_fort_native_sdpa_sm90_flash_fprop_wgmma_f16_knob_7_64x128x128", "cudnn_hopper"),
        ("triton_tem_fused_flex_attention_0", "flex"),
        ("fmhaSm100aKernel_QkvBfloat16OBfloat16H128PagedKvCausalP64VarSeqQ128Kv128Persistent", "trtllm_gen"),
        ("void at::native::elementwise_kernel<128>", None),
        ("void vllm::reshape_and_cache_flash_kernel<__nv_bfloat16>", None),
    ],
)
def test_names_of_compiled_kernels(name, kernel):
    assert kernel_of(name) == kernel
