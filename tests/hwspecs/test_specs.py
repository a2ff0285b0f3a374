"""The shipped GPU files: sound, sourced, named, and safe to extend with a file of one's own."""

import tomllib
from pathlib import Path

import pytest
import simattn.hwspecs
from simattn.facts import UserError
from simattn.hwspecs import check, gpus, labels, load_labelled

FOLDER = Path(simattn.hwspecs.__file__).parent
EXPECTED = """
a100_sxm_80gb a100_sxm_40gb a800_sxm h100_sxm h100_pcie h800_sxm h20 h200_sxm gh200 b200_sxm gb200 b300_sxm
gb300 l40s l20 rtx_3090 rtx_4090 rtx_5090 rtx_pro_6000 mi300x
"""
LABELS = """
h100-sxm gb200 b200-850w-1800mhz a100-unspecified gb300 rtx4090 a100-80gb-sxm h200 h100-unspecified h20
h800-sxm l20 rtx3090 b200 a100-docs-ci rtx5090-400w a100-40gb-sxm
"""


def read(path):
    return tomllib.loads(path.read_text(encoding="utf-8"))


def leaves(table, path=""):
    """Dotted paths of the numbers and words of a document, without its head and [meta]."""
    for key, value in table.items():
        if isinstance(value, dict):
            if path or key != "meta":
                yield from leaves(value, f"{path}{key}.")
        elif path:
            yield path + key


def user_file(tmp_path, text):
    path = tmp_path / "mine.toml"
    path.write_text(f'inherits = "h100_sxm"\nname = "mine"\n{text}', encoding="utf-8")
    return str(path)


def test_all_expected_gpus_ship():
    assert set(EXPECTED.split()) <= set(gpus.names())


@pytest.mark.parametrize("name", gpus.names())
def test_shipped_gpu_is_sound_and_sourced(name):
    spec = gpus.load(name)
    assert spec.name == name
    assert [f for f in check(spec) if f.status in ("off", "unsourced")] == []


@pytest.mark.parametrize("name", gpus.names())
def test_every_source_key_resolves(name):
    sources = read(FOLDER / "sources.toml")
    keys = {key.strip() for origin in gpus.load(name).meta.values() for key in origin.source.split(";")}
    assert keys <= sources.keys()


def test_every_source_is_used():
    used = {k.strip() for name in gpus.names() for origin in gpus.load(name).meta.values() for k in origin.source.split(";")}
    assert read(FOLDER / "sources.toml").keys() == used


@pytest.mark.parametrize("path", [*map(gpus.resolve, gpus.names()), *FOLDER.glob("arch/*.toml")], ids=lambda path: path.stem)
def test_a_file_sources_what_it_sets(path):
    document = read(path)
    assert set(leaves(document)) <= document["meta"].keys()


def test_aliases_resolve_and_hide_no_file():
    aliases = gpus.aliases()
    assert {gpus.load(alias).name for alias in aliases} <= set(gpus.names())
    assert not aliases.keys() & set(gpus.names())


@pytest.mark.parametrize("label", sorted({*LABELS.split(), *labels()}))
def test_labels_load_and_stay_sound(label):
    assert [f for f in check(load_labelled(label)) if f.status == "off"] == []


def test_clock_lock_of_a_label_is_applied():
    spec = load_labelled("b200-850w-1800mhz")
    assert (spec.clock_hz("burst"), spec.power.tdp_w) == (1.8e9, 850)
    assert load_labelled("h100-sxm-1830mhz").clock_hz("burst") == 1.83e9
    with pytest.raises(UserError, match="did you mean 'b200'"):
        load_labelled("b2000")


def test_a_peak_that_the_rate_was_computed_from_checks_nothing():
    stated = [f for f in check(gpus.load("h20")) if f.text.startswith("check.")]
    assert [f.status for f in stated] == ["vacuous", "vacuous"]


@pytest.mark.parametrize("name", [name for name in gpus.names() if gpus.load(name).check.bf16_tflops])
def test_a_sparse_peak_is_found(name):
    peak = gpus.load(name).check.bf16_tflops
    findings = check(gpus.load(name, {"check": {"bf16_tflops": 2 * peak}}))
    assert any(f.status == "off" and "structured sparsity" in f.text for f in findings)


def test_the_hopper_family_has_one_l2():
    family = [gpus.load(n) for n in gpus.names() if gpus.load(n).arch == "sm90"]
    assert {(s.mem.l2.bytes_per_clk, s.eff.l2) for s in family} == {(3942, 1.0)}


def test_user_file_inherits_from_a_shipped_gpu(tmp_path):
    spec = gpus.load(
        user_file(tmp_path, "[chip]\nsm_count = 66\n[check]\nbf16_tflops = 494.5\nfp8_tflops = 989\nfp32_tflops = 33.5\n")
    )
    assert (spec.name, spec.chip.sm_count, spec.mem.dram.gbps) == ("mine", 66, gpus.load("h100").mem.dram.gbps)
    assert [f for f in check(spec) if f.status == "off"] == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[chip\n", "not a TOML file"),
        ("[chip]\nsm_cout = 66\n", "did you mean 'sm_count'"),
        ("[mem]\ndram = { gbps = nan }\n", "mem.dram.gbps"),
        ("[mem]\ndram = { gbps = -1 }\n", "mem.dram.gbps"),
        ("[eff]\ndram_read = 1.2\n", "eff.dram_read"),
        ("[chip]\nclock_boost_mhz = 2100\n", "above chip.clock_max_mhz"),
    ],
)
def test_broken_user_file_is_refused_in_one_line(tmp_path, text, message):
    with pytest.raises(UserError, match=message) as caught:
        gpus.load(user_file(tmp_path, text))
    assert "\n" not in str(caught.value)


def test_missing_field_is_refused_in_one_line(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text('name = "mine"\ntitle = "Mine"\nvendor = "nvidia"\narch = "sm90"\n', encoding="utf-8")
    with pytest.raises(UserError, match=r"missing required field `\w+`") as caught:
        gpus.load(str(path))
    assert "\n" not in str(caught.value)
