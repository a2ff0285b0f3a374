"""How fast the simulator is: predictions of long calls, visits a second at fidelity cycle, and how both grow.

python benchmarks/simulation.py
"""

from __future__ import annotations

from time import perf_counter

import numpy as np
from simattn.hwspecs import gpus
from simattn.simulator import Setting, question, simulate
from simattn.simulator.machine import outcomes

CYCLE = Setting(fidelity="cycle")
LONG_CALLS = {
    "HunyuanVideo dense, B200": ("dense", "b200", {"model": "hunyuan-video"}),
    "HunyuanVideo radial, B200": ("radial", "b200", {}),
    "1M causal, 32 heads, H100": ("causal", "h100", {"seq_q": 2**20, "q_heads": 32, "kv_heads": 32}),
}
KERNELS = [("a100", "fa2"), ("a100", "triton"), ("h100", "fa3"), ("h100", "triton"), ("b200", "fa4"), ("b200", "trtllm_gen")]


def best(function, rounds=5):
    """Least seconds of some rounds, after one that compiles and fills caches; and the last answer.

    What the machine remembers of a simulated part is forgotten before each: a call asked for again would cost nothing.
    """
    answer = function()
    times = []
    for _ in range(rounds):
        outcomes.clear()
        start = perf_counter()
        answer = function()
        times.append(perf_counter() - start)
    return min(times), answer


def visits(run):
    return sum(op.schedule.visited for op in run.plan if hasattr(op, "schedule"))


def main() -> None:
    print("fast, warm, in one process: the call alone, without its baseline")
    for name, (pattern, hw, options) in LONG_CALLS.items():
        asked, spec = question(pattern, **options), gpus.load(hw)
        seconds, run = best(lambda asked=asked, spec=spec: simulate(asked, spec))
        print(f"  {name:28} {seconds * 1e3:7.1f} ms   {visits(run):>13,} visits   correction {run.correction:.3f}")

    print("cycle: every visit, memory shared, one core")
    for hw, kernel in KERNELS:
        spec, found = gpus.load(hw), []
        for tokens in (4096, 8192, 12288, 16384, 24576):
            asked = question("dense", seq_q=tokens, q_heads=16, kv_heads=16)
            seconds, run = best(
                lambda asked=asked, spec=spec, kernel=kernel: simulate(asked, spec, kernel=kernel, setting=CYCLE), 3
            )
            found.append((visits(run), seconds))
        n, t = np.array(found).T
        slope, offset = np.polyfit(n, t, 1)
        straight = 1 - ((t - slope * n - offset) ** 2).sum() / ((t - t.mean()) ** 2).sum()
        rows = run.choice.tiling.q_rows * run.choice.tiling.kv_rows
        print(
            f"  {hw:6} {kernel:12} {1 / slope / 1e6:5.2f} M visits/s ({rows / 128 / 128 / slope / 1e6:5.2f} M of 128x128/s), "
            f"linear in visits: R^2 {straight:.5f} over {n[0]:,.0f} to {n[-1]:,.0f}"
        )

    print("fast: growth with the call")
    spec, found = gpus.load("h100"), []
    for tokens in (2**17, 2**18, 2**19, 2**20):
        asked = question("causal", seq_q=tokens, q_heads=32, kv_heads=32)
        seconds, run = best(lambda asked=asked, spec=spec: simulate(asked, spec))
        found.append((run.plan[0].schedule.work_rows, seconds))
        print(f"  causal {tokens:>9,} tokens, {visits(run):>13,} visits in {found[-1][0]:>7,} CTAs: {seconds * 1e3:6.1f} ms")
    n, t = np.array(found).T
    slope, offset = np.polyfit(n, t, 1)
    print(f"  linear in CTAs: {slope * 1e9:.0f} ns each")


if __name__ == "__main__":
    main()
