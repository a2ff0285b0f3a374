"""compare: ranked rows, in Python and on the command line; a row that fails says why and stops no other."""

import csv
import io

import pytest

import simattn
from simattn import UserError
from simattn.comparison import compare

from .test_cli import answer, run

SMALL = {"seq_q": 4096, "q_heads": 8, "kv_heads": 8}


def test_rows_are_ranked_and_are_what_predict_says():
    ranked = simattn.compare(["h100", "b200"], ["causal", "sliding_window"], **SMALL)
    times = [row.latency_ms for row in ranked.rows]
    assert times == sorted(times)
    assert {(row.pattern, row.gpu) for row in ranked.rows} == {
        (pattern, gpu) for pattern in ("causal", "sliding_window") for gpu in ("h100_sxm", "b200_sxm")
    }
    p = simattn.predict("sliding_window", "h100", **SMALL)
    (row,) = [row for row in ranked.rows if (row.pattern, row.gpu) == ("sliding_window", "h100_sxm")]
    assert (row.latency_ms, row.latency_ms_low, row.latency_ms_high) == (p.latency_ms, p.latency_ms_low, p.latency_ms_high)
    assert (row.speedup, row.bound_flop, row.bound_tiles) == (p.speedup, p.bounds.flop, p.bounds.tile_mean)
    assert (row.limiter, row.kernel, row.density) == (p.limiter, p.kernel, p.density.pairs)


def test_a_row_that_fails_says_why():
    told = []
    ranked = compare("h100", ["causal", "radial", "gna"], progress=lambda *args: told.append(args), **SMALL)
    assert [row.error is None for row in ranked.rows] == [True, False, False]
    assert "frames" in ranked.rows[1].error
    assert ranked.rows[1].latency_ms is None
    assert [(done, total) for _, done, total in told] == [(0, 3), (1, 3), (2, 3)]


def test_no_answer_at_all_is_an_error():
    with pytest.raises(UserError, match="unknown GPU 'h1000'"):
        compare("h1000", "causal", **SMALL)
    with pytest.raises(UserError, match="at least one"):
        compare([], ["causal"])


@pytest.mark.parametrize(
    ("hw", "patterns", "message"),
    [
        (["h100", "h10"], ["causal"], "unknown GPU 'h10'; did you mean 'h100'"),
        (["h100"], ["causal", "caussal"], "unknown pattern 'caussal'; did you mean 'causal'"),
        (["h100"], ["causal", "smallthinker"], "use --pattern sliding_window"),
    ],
)
def test_a_misspelt_name_among_good_ones_is_told_before_anything_is_simulated(hw, patterns, message):
    told = []
    with pytest.raises(UserError, match=message):
        compare(hw, patterns, progress=lambda *args: told.append(args), **SMALL)
    assert not told


SIZES = ("--seq-q", 4096, "--q-heads", 8, "--kv-heads", 8)
COMMAND = ("compare", "--hw", "h100,b200", "--patterns", "causal,sliding_window", *SIZES)


def test_on_the_command_line():
    rows = answer(*COMMAND)
    assert len(rows) == 4
    assert rows == sorted(rows, key=lambda row: row["latency_ms"])
    table = run(*COMMAND)
    assert table.returncode == 0
    for words in ("limiter", "by FLOPs", "by tiles", "sliding_window", "b200_sxm"):
        assert words in table.stdout
    assert table.stderr == ""
    read = list(csv.DictReader(io.StringIO(run(*COMMAND, "--csv").stdout)))
    assert [float(row["latency_ms"]) for row in read] == pytest.approx([row["latency_ms"] for row in rows])


def test_mistakes_on_the_command_line():
    done = run("compare", "--hw", "h100", "--patterns", ",", "--seq-q", 4096)
    assert done.returncode == 2
    assert run(*COMMAND, "--csv", "--json").returncode == 2
    command = ("compare", "--hw", "h100", "--patterns", "causal,radial", *SIZES)
    failing = run(*command)
    assert failing.returncode == 0
    assert "radial on h100: " in failing.stdout
    assert answer(*command)[1]["error"]
    misspelt = run("compare", "--hw", "h100,h10", "--patterns", "causal", *SIZES)
    assert (misspelt.returncode, misspelt.stdout, len(misspelt.stderr.splitlines())) == (2, "", 1)
