"""Claims of published systems: every one has a verdict, and the committed page is what the simulator says."""

import json
import re
from pathlib import Path

import msgspec
import pytest
from click.testing import CliRunner
from simattn.validation.claims import claims_page, errors_of, judge, read_claims
from simattn.validation.claims.claim import Claim
from simattn.validation.claims.page import published
from simattn.validation.claims.quantity import _QUANTITIES
from simattn.validation.claims.rule import missing, rule_of, rules
from simattn.validation.claims.selector import Selector
from simattn.validation.claims.setting import Ask, ask_of, settings
from simattn.validation.claims.trial import fitting
from simattn.validation.claims.verdict import TOLERANCES, tolerance

from simattn import UserError
from simattn.cli import simattn

FOLDER = Path(__file__).parents[2] / "validation" / "claims"
PAGE = (Path(__file__).parents[2] / "docs" / "claims.md").read_text(encoding="utf-8")
CLAIMS = read_claims()
BY_ID = {claim.id: claim for claim in CLAIMS}

SAMPLE = (
    "natten-dense-baseline-1",
    "generalized-neighborhood-attention-fna-natten-v0.20-1",
    "generalized-neighborhood-attention-natten-v0.20.0-2",
    "generalized-neighborhood-attention-1",
    "generalized-neighborhood-attention-4",
    "radial-attention-4",
    "radial-attention-7",
    "blasst-trt-llm-dense-baseline-1",
    "blasst-30",
    "blasst-59",
    "blasst-60",
    "blasst-88",
    "infllm-v2-1",
    "infllm-v2-4",
    "nsa-6",
    "minference-1",
    "minference-3",
    "seerattention-1",
    "sla-11",
    "sla-16",
    "vmoba-1",
    "sparse-vdit-8",
    "adaspa-6",
    "hisa-3",
    "tidaldecode-2",
    "tidaldecode-13",
    "sparsed-3",
    "lightning-attention-2-3",
    "fusemax-3",
    "sqa-1",
    "dsvt-1",
)
"""Claims of every kind and verdict that take no time."""


@pytest.fixture(scope="module")
def sample():
    return {name: judge(BY_ID[name]) for name in SAMPLE}


def claim(**fields):
    given = {"system": "X", "claim": "c", "metric": "kernel latency us", "value": 1.0, "source": "s", "source_kind": "k"}
    return Claim(**{**given, **fields})


def test_the_table_is_whole():
    assert len(CLAIMS) == len(BY_ID) == 590
    assert all(c.source and c.source_kind for c in CLAIMS)


@pytest.mark.parametrize("c", CLAIMS, ids=lambda c: c.id)
def test_every_claim_is_asked_or_a_rule_says_why_not(c):
    if ask_of(c) is None or c.number is None:
        assert rule_of(c).words(c)


def test_every_setting_and_rule_is_about_a_claim():
    served = {id(ask.setting) for c in CLAIMS if (ask := ask_of(c)) is not None}
    assert {id(s) for s in settings()} == served
    held = {id(rule_of(c)) for c in CLAIMS if ask_of(c) is None or c.number is None}
    assert {id(r) for r in rules()} == held


def test_every_kind_is_asked_for_and_has_a_tolerance():
    kinds = {s.gives for s in settings()}
    assert kinds == set(_QUANTITIES) == {*TOLERANCES, "attention share"}


def test_settings_take_ten_lines_each():
    text = (FOLDER / "settings.toml").read_text(encoding="utf-8")
    entries = [entry.split("\n\n")[0] for entry in text.split("[[setting]]\n")[1:]]
    assert max(len(entry.strip().splitlines()) for entry in entries) <= 9


def test_a_claim_that_no_rule_is_about_is_refused():
    with pytest.raises(UserError, match="no rule says why"):
        judge(claim(id="x-1", gpu="H100", seq_len=1024, q_heads=8, metric="latency ms"))


def test_a_mistake_in_a_setting_is_no_verdict(monkeypatch):
    setting = msgspec.structs.replace(ask_of(BY_ID["infllm-v2-1"]).setting, system="X", where={}, call={"kernel": "nonsense"})
    monkeypatch.setattr("simattn.validation.claims.setting.settings", lambda: (setting,))
    with pytest.raises(UserError, match="nonsense"):
        judge(claim(gpu="H100", seq_len=1024, q_heads=8, head_dim=128))


@pytest.mark.parametrize("factor", [1.1, 1.2, 0.8])
def test_a_claim_is_judged_by_its_error(factor, monkeypatch):
    one = BY_ID["natten-dense-baseline-1"]
    exact = judge(one).predicted
    verdict = judge(msgspec.structs.replace(one, value=exact / factor))
    assert verdict.error == pytest.approx(factor - 1)
    assert verdict.word == ("reproduced" if abs(factor - 1) <= tolerance("kernel time", 1.0) else "off")


def test_a_time_below_that_of_its_live_pairs_is_out_of_reach():
    verdict = judge(msgspec.structs.replace(BY_ID["natten-dense-baseline-1"], value=100.0))
    assert verdict.word == "off"
    assert "live pairs alone take" in verdict.why


def test_shares_are_judged_in_points():
    assert tolerance("attention share", 50.0) == pytest.approx(0.06)


def test_selectors_read_numbers_and_refuse_unknown_fields():
    words = Selector(where={"claim": r"stride (?P<a>\d+)x(?P<b>\d+)?"})
    assert words.read(claim(claim="at stride 16x")) == {"a": 16.0}
    assert words.read(claim(claim="no stride")) is None
    assert Selector(absent=("value",)).read(claim()) is None
    with pytest.raises(UserError, match="no field 'colour'"):
        Selector(where={"colour": "red"})


def test_what_a_claim_states_goes_into_its_call():
    ask = ask_of(BY_ID["blasst-30"])
    assert isinstance(ask, Ask)
    assert (ask.gpu, ask.call["seq_kv"], ask.call["dtype"], ask.call["q_heads"]) == ("b200", 16384, "fp8", 64)
    assert ask.call["density"] == pytest.approx(1 - BY_ID["blasst-30"].sparsity)


def test_missing_fields_are_named():
    assert missing(claim(metric="end-to-end speedup")) == ["the GPU", "how many tokens", "heads (or a model)", "the baseline"]
    assert missing(claim(gpu="A100", seq_len="~110K", model="m")) == []


def test_values_that_reconcile_a_claim():
    assert fitting({1.0: 1.05, 2.0: 1.02, 4.0: 0.2}, 0.1).startswith("1 to 2.")
    assert fitting({0: 0.5, 10: 2.0}, 0.1) == "4.56 to 5.44"


def test_times_are_in_seconds_and_printed_in_their_unit():
    assert BY_ID["natten-dense-baseline-1"].number == pytest.approx(787.392e-6)
    assert judge(BY_ID["natten-dense-baseline-1"]).predicted > 500


# --- The committed page


def page_counts():
    rows = re.findall(r"^\| ([a-z -]+) \| (\d+) \| (\d+) \|$", PAGE, flags=re.MULTILINE)
    return {word: (int(n), int(simulated)) for word, n, simulated in rows}


def test_the_page_counts_every_claim_once():
    counts = page_counts()
    words = ("reproduced", "off", "under-specified", "not modelled")
    assert sum(counts[word][0] for word in words) == counts["all"][0] == len(CLAIMS)
    assert sum(counts[word][1] for word in words) == counts["all"][1]
    rows = re.findall(r"^\| .* \| [+-]\d+ % \|", PAGE, flags=re.MULTILINE)
    assert len(rows) == counts["all"][1] >= 40


def test_the_page_does_not_simulate_more_than_is_asked():
    asked = sum(ask_of(c) is not None and c.number is not None for c in CLAIMS)
    refused = sum(
        int(n) for n in re.findall(r"^\| (\d+) \| (?:no profiled kernel runs|the backward pass of) ", PAGE, re.MULTILINE)
    )
    assert page_counts()["all"][1] == asked - refused


@pytest.mark.parametrize("name", SAMPLE)
def test_the_page_says_what_is_computed(sample, name):
    verdict = sample[name]
    section = PAGE.split(f"\n## {verdict.word.capitalize()}\n")[1].split("\n## ")[0]
    if verdict.gives:
        assert f"| {published(verdict)} | {verdict.predicted:.4g} | {100 * verdict.error:+.0f} % |" in section
    assert verdict.why.replace("|", "\\|") in section


def test_a_page_of_some_claims(sample):
    page = claims_page(list(sample.values()))
    assert f"| all | {len(SAMPLE)} |" in page
    assert page.count("## ") == 5
    kinds = errors_of(sample.values())
    assert sum(len(errors) for errors in kinds.values()) == sum(v.gives is not None for v in sample.values())


# --- The command


def run(*arguments):
    return CliRunner().invoke(simattn, ["claims", *arguments])


def test_the_command_prints_verdicts_and_counts():
    done = run("--system", "natten dense")
    assert done.exit_code == 0
    assert "4 reproduced; 4 of 4 simulated" in done.stdout


def test_the_command_answers_in_json():
    rows = json.loads(run("--system", "hisa", "--json").stdout)
    assert {row["verdict"] for row in rows} <= {"reproduced", "off", "under-specified", "not modelled"}
    assert {"id", "published", "predicted", "error", "why", "assumes", "source"} <= rows[0].keys()


def test_the_command_refuses_what_it_cannot_do(tmp_path):
    done = run("--system", "nonsense")
    assert isinstance(done.exception, UserError)
    assert "nonsense" in str(done.exception)
    assert run("--system", "hisa", "--page", str(tmp_path / "x.md")).exit_code == 2
    assert run("--page", str(tmp_path / "no" / "x.md")).exit_code == 2
