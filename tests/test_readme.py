"""The README shows what the program really prints."""

import re
import subprocess
import sys
from pathlib import Path

from simattn.validation import calibration_page, scoreboard, shipped_calibrations
from simattn.validation.page import class_section

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_first_answer_is_the_real_one(tmp_path):
    command = re.search(r"&& (simattn predict [^\n]*)\n", README).group(1).split()[1:]
    script = "from simattn.cli import main; main()"
    printed = subprocess.run(
        [sys.executable, "-P", "-c", script, *command], capture_output=True, text=True, cwd=tmp_path, check=True
    ).stdout
    shown = re.search(r"```text\n(.*?)```", README, re.DOTALL).group(1)
    assert [line.rstrip() for line in printed.splitlines()] == shown.splitlines()


def test_accuracy_is_stated_as_it_is():
    board = scoreboard("C")
    written = (ROOT / "docs" / "accuracy.md").read_text(encoding="utf-8")
    assert class_section("C", board) in written
    everything = next(g for _, g in board.scores if g.group.gpu == "all")
    ours, naive = everything.simulated, everything.flop_bound
    stated = (
        f"{everything.n} published runs, none of which was used to fit a constant: {100 * ours.mape:.0f} % mean error, "
        f"{100 * ours.median:.0f} % median, {100 * ours.p90:.0f} % at the ninetieth percentile, {100 * ours.max:.0f} % at worst"
    )
    assert stated in " ".join(README.split())
    assert f"the FLOP bound, the usual estimate, is {100 * naive.mape:.0f} % off" in " ".join(README.split())


def test_calibrations_are_stated_as_they_are():
    assert (ROOT / "docs" / "calibrations.md").read_text(encoding="utf-8") == calibration_page()
    by_name = {(c.kernel, c.gpu): c.score for c in shipped_calibrations()}
    fa3, trtllm = by_name["fa3_paged", "h100_sxm"], by_name["trtllm_gen", "b200_sxm"]
    stated = (
        f"{100 * fa3['dense'].mape:.1f} and {100 * trtllm['dense'].mape:.1f} % for dense calls and "
        f"{100 * fa3['D128 window 128'].mape:.1f} and {100 * trtllm['D128 window 128'].mape:.1f} % for windows of 128 keys"
    )
    assert stated in " ".join(README.split())
