"""patterns on the command line: lists, pictures, priced plans; and calls with masks and tensors of one's own."""

import numpy as np
import pytest
from simattn.workloads import schedule, systems

from simattn.picture import SHADES, block_picture

from .test_cli import answer, run


def test_list_names_every_pattern_and_how_far_it_is_trusted():
    rows = {row["name"]: row for row in answer("patterns", "list")}
    assert set(rows) == set(systems.names())
    assert rows["lvsa"]["kind"] == "published"
    assert rows["lvsa"]["exactness"] == "approximate"
    assert rows["dense"]["kind"] == "baseline"


def test_related_methods_are_listed_and_shown():
    rows = answer("patterns", "list", "--related")
    assert len(rows) == 36
    assert all(row["why"] for row in rows)
    shown = run("patterns", "show", "smallthinker")
    assert shown.returncode == 0
    assert "--pattern sliding_window" in shown.stdout
    assert answer("patterns", "show", "SmallThinker")["pattern"] == "sliding_window"
    refused = run("predict", "--hw", "h100", "--pattern", "smallthinker")
    assert refused.returncode == 2
    assert "--pattern sliding_window" in refused.stderr
    assert len(refused.stderr.splitlines()) == 1


def test_show_has_picture_plan_policy_claims_and_source():
    done = run("patterns", "show", "lvsa", "--hw", "a100")
    assert done.returncode == 0
    for words in (
        "arXiv 2605.31057",
        "approximate: the code widens",
        "frame f sees frames g",
        "█",
        "wan2.1-1.3b, 126,360 tokens",
        "stride",
        "plan on a100_sxm_80gb",
        "kernel flashinfer_bsr",
        "bytes = 2 * B * M * Hk * (d + dv) * e",
        "1.55 GB",
        "e2e speedup",
        "README.md",
    ):
        assert words in done.stdout
    shown = answer("patterns", "show", "lvsa")
    assert [(op["op"], op["kind"]) for op in shown["plan"]] == [("attention", "attention"), ("compact keys", "stream")]
    assert shown["claims"][0]["value"] == 2.3
    assert shown["defaults"]["stride"] == 6


def test_a_file_of_ones_own_is_a_pattern(tmp_path):
    own = tmp_path / "my_system.toml"
    own.write_text(
        'name = "mine"\ntitle = "Mine"\nfamily = "strided"\nsummary = "every fourth block"\n'
        'params = { block = 64, local = 1, stride = 4 }\n[[side]]\nname = "pool"\nkind = "stream"\nbytes = "N * Hq * d * e"\n'
        '[workload]\nmodel = "llama-3.1-8b"\nseq = 4096\n[meta]\nrule = { kind = "recalled", source = "mine" }\n',
        encoding="utf-8",
    )
    p = answer("predict", "--hw", "h100", "--pattern", own)
    assert p["pattern"] == "mine"
    assert p["side"][0]["bytes"] == 4096 * 32 * 128 * 2
    assert "mine: rule" in p["provenance"]["recalled"]
    assert run("patterns", "show", own).returncode == 0
    own.write_text(own.read_text(encoding="utf-8").replace("N * Hq", "N * heads"), encoding="utf-8")
    done = run("predict", "--hw", "h100", "--pattern", own)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "unknown name 'heads'" in done.stderr


def test_a_mask_function_is_predicted(tmp_path):
    file = tmp_path / "my_mask.py"
    file.write_text("def window(b, h, q, k):\n    return (q >= k) & (q - k < 512)\n", encoding="utf-8")
    shape = ("--hw", "h100", "--seq-q", 4096, "--q-heads", 4, "--kv-heads", 4)
    own = answer("predict", *shape, "--mask-mod", f"{file}:window", "--causal")
    ours = answer("predict", *shape, "--pattern", "sliding_window", "--set", "window=512")
    assert own["pattern"] == "mask_function"
    assert own["bounds"]["flop"] == pytest.approx(ours["bounds"]["flop"])
    for mistake in (
        ("--mask-mod", f"{file}:absent"),
        ("--mask-mod", f"{file}:window", "--pattern", "causal"),
        ("--mask-mod", file),
    ):
        done = run("predict", *shape, *mistake)
        assert done.returncode == 2
        assert len(done.stderr.splitlines()) == 1


def test_q_and_k_of_a_file_say_which_sizes_a_call_has(tmp_path):
    file, rng = tmp_path / "qk.npz", np.random.default_rng(0)
    np.savez(file, q=rng.standard_normal((4, 512, 64)), k=rng.standard_normal((2, 512, 64)))
    own = tmp_path / "own.toml"
    own.write_text(
        'name = "own"\ntitle = "Own"\nfamily = "pooled_select"\nsummary = "by exact mass"\n'
        'params = { block = 64, causal = true, top_k = 2, estimator = "exact" }\n'
        '[workload]\nmodel = "llama-3.1-8b"\n[meta]\nrule = { kind = "recalled", source = "mine" }\n',
        encoding="utf-8",
    )
    p = answer("predict", "--hw", "h100", "--pattern", own, "--qk", file)
    assert {name: p["problem"][name] for name in ("q_heads", "kv_heads", "head_dim", "seq_q", "seq_kv")} == {
        "q_heads": 4,
        "kv_heads": 2,
        "head_dim": 64,
        "seq_q": 512,
        "seq_kv": 512,
    }
    assert p["provenance"]["seed_spread"] is None
    drawn = answer("predict", "--hw", "h100", "--pattern", own, "--seq-q", 512)
    low, high = drawn["provenance"]["seed_spread"]
    assert low <= 1 <= high
    for mistake, words in (
        (("--pattern", own, "--qk", file, "--head-dim", 128), "head_dim=64"),
        (("--pattern", own, "--qk", file, "--seq-q", 1024), "seq_q=512"),
        (("--pattern", "radial", "--qk", file), "does not choose by Q and K"),
        (("--pattern", own, "--qk", tmp_path / "none.npz"), "no such file"),
    ):
        done = run("predict", "--hw", "h100", *mistake)
        assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
        assert words in done.stderr


def test_pictures_are_as_wide_as_asked_and_as_dark_as_the_schedule():
    dense = block_picture(schedule("dense", seq_q=4096), width=32)
    assert dense == ["█" * 32] * 16
    window = block_picture(schedule("sliding_window", seq_q=4096, window=1), width=32)
    assert all(line.strip(" ") and len(line.strip(" ")) <= 4 for line in window)
    assert set("".join(window)) <= set(SHADES)
    assert block_picture(schedule("causal", seq_q=1, seq_kv=4096), width=8) == ["█" * 8]


def test_show_says_what_a_selecting_layer_adds():
    shown = run("patterns", "show", "tidal").stdout
    assert "a selecting layer adds" in shown
    assert "bytes = B * Hq * M * e; passes = 2" in shown
