import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest
from simattn.hwspecs import load_labelled
from simattn.validation.sources import aiconfigurator
from simattn.validation.sources.aiconfigurator import Table, read_table, tables

from simattn import UserError

ROW = {
    "framework": "VLLM",
    "kernel_source": "vllm_flash_attn_fa3",
    "batch_size": 2,
    "isl": 4096,
    "num_heads": 32,
    "num_key_value_heads": 8,
    "head_dim": 128,
    "attn_dtype": "bfloat16",
    "kv_cache_dtype": "bfloat16",
    "window_size": 0,
    "step": 0,
    "latency": 0.5,
}
H100 = Table("h100_sxm", "vllm", "0.24.0")

installed = pytest.mark.skipif(find_spec("aiconfigurator_core") is None, reason="needs aiconfigurator-core")


@pytest.fixture
def write(tmp_path, monkeypatch):
    """Write rows as a table of a package that is not there; gives the arguments that read it."""
    pa = pytest.importorskip("pyarrow")
    parquet = pytest.importorskip("pyarrow.parquet")
    monkeypatch.setattr(aiconfigurator, "_data", lambda: tmp_path)

    def write(*rows, table=H100, drop=()):
        path = tmp_path / table.path
        path.parent.mkdir(parents=True, exist_ok=True)
        full = [{name: value for name, value in {**ROW, **row}.items() if name not in drop} for row in rows]
        parquet.write_table(pa.Table.from_pylist(full), path)
        return table

    return write


def test_a_row_is_read_in_full(write):
    (run,) = read_table(*write({}))
    assert run.id == "aiconfigurator/h100_sxm/vllm/0.24.0/vllm_flash_attn_fa3/b2-n4096-h32-kv8-d128-w0"
    assert run.table == "aiconfigurator/h100_sxm/vllm/0.24.0"
    assert run.source.endswith("systems/data/h100_sxm/attention/vllm/0.24.0/context_attention_perf.parquet")
    assert (run.gpu, run.kernel, run.phase, run.dtype) == ("h100_sxm", "vllm/vllm_flash_attn_fa3", "prefill", "bf16")
    assert (run.batch, run.q_heads, run.kv_heads, run.seq_q, run.seq_kv, run.head_dim) == (2, 32, 8, 4096, 4096, 128)
    assert (run.latency_ms, run.pattern, run.pattern_params, run.suspect) == (0.5, "causal", {}, False)


def test_no_kv_heads_stand_for_as_many_as_heads(write):
    (run,) = read_table(*write({"num_key_value_heads": 0}))
    assert run.kv_heads == 32
    assert "-kv32-" in run.id


def test_a_window_is_a_sliding_window(write):
    dense, window = read_table(*write({}, {"window_size": 128}))
    assert (window.pattern, window.pattern_params) == ("sliding_window", {"window": 128})
    assert dense.id != window.id


def test_tables_without_a_window_column_are_causal(write):
    (run,) = read_table(*write({}, drop=["window_size"]))
    assert run.pattern == "causal"


@pytest.mark.parametrize("other", [{"attn_dtype": "fp8"}, {"kv_cache_dtype": "fp8"}, {"step": 1024}])
def test_only_bf16_rows_from_token_zero_are_kept(write, other):
    (run,) = read_table(*write({**other, "latency": 0.1}, {}))
    assert run.latency_ms == 0.5


def test_a_shape_measured_twice_is_one_row_with_the_median(write):
    once, twice = read_table(*write({"isl": 1}, {"latency": 0.9}, {"latency": 0.4}, {"latency": 0.6}))
    assert (once.seq_q, twice.seq_q) == (1, 4096)
    assert twice.latency_ms == 0.6


def test_the_kernel_tells_rows_apart(write):
    assert len({run.id for run in read_table(*write({}, {"kernel_source": "vllm_triton_attn"}))}) == 2


@pytest.mark.parametrize(
    ("table", "row", "suspect"),
    [
        ("h200_sxm/vllm/0.19.0", {}, True),
        ("h200_sxm/vllm/0.24.0", {}, False),
        ("b200_sxm/sglang/0.5.10", {}, True),
        ("b200_sxm/sglang/0.5.10", {"window_size": 128}, False),
        ("a100_sxm/sglang/0.5.10", {}, False),
        ("h100_sxm/sglang/0.5.14", {"kernel_source": "fa3", "window_size": 8192}, True),
        ("h100_sxm/sglang/0.5.14", {"kernel_source": "fa3"}, False),
        ("h100_sxm/sglang/0.5.14", {"kernel_source": "triton", "window_size": 1024}, False),
        ("h100_sxm/vllm/0.24.0", {"kernel_source": "fa3", "window_size": 128}, False),
    ],
)
def test_rows_known_to_be_wrong_are_suspect(write, table, row, suspect):
    (run,) = read_table(*write(row, table=Table(*table.split("/"))))
    assert run.suspect == suspect


def test_rules_say_why():
    assert all(rule.why and rule.source for rule in aiconfigurator._suspicions())


def test_encoders_are_dense_and_a_table_of_their_own(write):
    missing = ["num_key_value_heads", "kv_cache_dtype", "window_size", "step"]
    encoder = write({"head_dim": 72}, table=Table("l40s", "vllm", "0.24.0", "encoder_attention"), drop=missing)
    (run,) = read_table(*encoder)
    assert (run.pattern, run.kv_heads, run.table) == ("dense", 32, "aiconfigurator/l40s/vllm/0.24.0/encoder")
    assert tables("encoder_attention") == [encoder]
    assert tables() == []


def test_a_decode_sees_the_cache_and_itself(write):
    decode = write({"isl": 1, "step": 4095}, table=H100._replace(op="generation_attention"))
    (run,) = read_table(*decode)
    assert (run.phase, run.seq_q, run.seq_kv, run.pattern) == ("decode", 1, 4096, "dense")
    assert (run.table, str(decode)) == ("aiconfigurator/h100_sxm/vllm/0.24.0/decode", "h100_sxm/vllm/0.24.0/decode")
    assert run.id.endswith("/decode/vllm_flash_attn_fa3/b2-n4096-h32-kv8-d128-w0")


def test_rows_in_fp8_are_a_table_of_their_own(write):
    write({}, {"attn_dtype": "fp8", "kv_cache_dtype": "fp8", "latency": 0.3}, {"kv_cache_dtype": "fp8", "latency": 0.4})
    (run,) = read_table(*H100._replace(dtype="fp8"))
    assert (run.latency_ms, run.dtype, run.table) == (0.3, "fp8", "aiconfigurator/h100_sxm/vllm/0.24.0/fp8")


@pytest.mark.parametrize("op", ["attention", "encoder_attention", "generation_attention"])
@pytest.mark.parametrize("dtype", ["bf16", "fp8"])
def test_names_say_which_table(op, dtype):
    table = Table("h100_sxm", "vllm", "0.24.0", op, dtype)
    assert Table.of(str(table)) == table


@pytest.mark.parametrize("name", ["h100_sxm", "h100_sxm/vllm", "h100_sxm/vllm/0.24.0/backward"])
def test_other_names_are_refused(name):
    with pytest.raises(UserError, match="expected GPU/FRAMEWORK/VERSION"):
        Table.of(name)


def test_what_is_left_out_says_why():
    text = (Path(aiconfigurator.__file__).parent / "aiconfigurator.toml").read_text(encoding="utf-8")
    left_out = tomllib.loads(text)["left_out"]
    assert len(left_out) > 4
    assert all(entry.keys() == {"files", "why"} for entry in left_out)


def test_tables_are_listed_in_order(write):
    written = [
        write({}, table=Table(gpu, "vllm", "0.24.0")) for gpu in ("l40s", "b200_sxm", "h200_sxm", "a100_sxm", "gb200", "h100_sxm")
    ]
    write({}, table=H100._replace(op="encoder_attention"))
    assert tables() == sorted(written)


def test_an_unknown_table_is_refused_with_the_nearest(write):
    write({})
    with pytest.raises(UserError, match=r"unknown table 'h100_sxm/vllm/0.25.0'; did you mean 'h100_sxm/vllm/0.24.0'"):
        read_table("h100_sxm", "vllm", "0.25.0")


def test_other_columns_are_refused(write):
    with pytest.raises(UserError, match="missing required field `latency`"):
        read_table(*write({}, drop=["latency"]))


def test_a_missing_package_says_how_to_install_it(monkeypatch):
    monkeypatch.setattr(aiconfigurator, "find_spec", lambda name: None)
    for read in (tables, lambda: read_table(*H100)):
        with pytest.raises(UserError, match=r"pip install 'simattn\[validation\]'") as caught:
            read()
        assert "\n" not in str(caught.value)


def test_missing_pyarrow_says_how_to_install_it(tmp_path, monkeypatch):
    (tmp_path / H100.path).parent.mkdir(parents=True)
    (tmp_path / H100.path).touch()
    monkeypatch.setattr(aiconfigurator, "_data", lambda: tmp_path)
    for name in ("pyarrow", "pyarrow.parquet"):
        monkeypatch.setitem(sys.modules, name, None)
    with pytest.raises(UserError, match=r"pip install 'simattn\[validation\]'"):
        read_table(*H100)


@installed
def test_the_h100_table_reads_in_full():
    pytest.importorskip("pyarrow")
    runs = read_table(*H100)
    assert len(runs) > 10_000
    assert len({run.id for run in runs}) == len(runs)
    assert {load_labelled(gpu).name for gpu in {run.gpu for run in runs}} == {"h100_sxm"}
    assert not any(run.suspect for run in runs)
    assert all(run.latency_ms > 0 and run.q_heads % run.kv_heads == 0 for run in runs)
    assert {run.pattern_params.get("window") for run in runs} == {None, 128, 1024, 8192}


@installed
def test_the_gpus_of_the_package_are_known():
    # b60 is an Intel card, which no spec describes.
    assert {load_labelled(table.gpu).vendor for table in tables() if table.gpu != "b60"} == {"nvidia"}
    assert len(tables()) >= 20


@installed
def test_the_package_is_not_imported():
    assert tables()
    assert "aiconfigurator_core" not in sys.modules
