"""How fast sweeps are: predictions a second and core of a grid of some 10,000 points; with --kills N, what is left after N kills.

python -P benchmarks/sweep.py [--kills 20]
"""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from simattn.sweeps import SweepSpec, sweep

SPEC = {
    "patterns": ["sliding_window", "gna", "streaming_llm"],
    "hw": ["a100", "h100", "h200", "b200"],
    "vary": {
        "seq_q": [4096, 8192, 16384, 32768],
        "batch": [1, 2, 4, 8],
        "q_heads": [8, 16, 32],
        "window": [256, 512, 1024, 1536, 2048, 3072, 4096],
        "stride": [1, 16, 256],
        "sinks": [4, 64, 128, 256],
    },
    "options": {"kv_heads": 8},
}
"""Windows, neighborhoods and windows with sinks of LLM lengths: batch, heads, length, window, stride and sinks vary."""

KILLED = {**SPEC, "vary": {**SPEC["vary"], "seq_q": [4096, 8192], "batch": [1, 2], "q_heads": [8, 16]}}
"""A part of it, for a sweep that is killed."""

COMMAND = [sys.executable, "-P", "-c", "from simattn.cli import main; main()", "sweep"]


def rate() -> None:
    spec = SweepSpec.read(SPEC)
    sweep(SweepSpec.read({**SPEC, "random": 20}), jobs=1)  # compiles, and reads what is read once
    wall, cpu = time.perf_counter(), time.process_time()
    answer = sweep(spec, jobs=1)
    wall, cpu = time.perf_counter() - wall, time.process_time() - cpu
    n = len(answer.rows)
    print(f"{n:,} points, {answer.failed} failed, one process: {n / wall:.0f} predictions/s, {n / cpu:.0f} a second of CPU time")
    for pattern in spec.patterns:
        own = [row["tiles_visited"] for row in answer.rows if row["pattern"] == pattern and row["error"] is None]
        low, middle, high = np.percentile(own, [5, 50, 95])
        print(f"  {pattern}: {len(own):,} points, {middle:,.0f} visited tiles ({low:,.0f} to {high:,.0f} in nine of ten)")
    cores = os.cpu_count() or 1
    wall, cpu = time.perf_counter(), children_cpu()
    sweep(spec, jobs=cores)
    wall, cpu = time.perf_counter() - wall, children_cpu() - cpu
    print(
        f"the same with {cores} processes, their start included: {n / wall:.0f} predictions/s, {n / wall / cores:.0f} a core; "
        f"{n / cpu:.0f} a second of CPU time"
    )


def children_cpu() -> float:
    """Seconds that processes which have ended took of the CPU."""
    used = resource.getrusage(resource.RUSAGE_CHILDREN)
    return used.ru_utime + used.ru_stime


def kills(times: int) -> None:
    """Kill a sweep again and again, and hold its rows against those of one that was left alone."""
    with tempfile.TemporaryDirectory() as folder:
        spec = Path(folder) / "sweep.toml"
        spec.write_text(toml(KILLED), encoding="utf-8")
        whole, path = Path(folder) / "whole.json", Path(folder) / "killed.json"
        subprocess.run([*COMMAND, spec, "-o", whole], check=True, stdout=subprocess.DEVNULL)
        draw, done = random.Random(0), 0
        while done < times and not path.exists():
            before = parts(path)
            started = subprocess.Popen([*COMMAND, spec, "-o", path], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
            # Every fourth time at any moment of the start; otherwise once it has got on.
            while done % 4 and started.poll() is None and parts(path) == before:
                time.sleep(0.005)
            time.sleep(draw.random() * (0.25 if done % 4 else 2.0))
            started.send_signal(signal.SIGKILL)
            done += started.wait() == -signal.SIGKILL
            print(f"  kill {done}: {before} chunks before, {parts(path)} behind", flush=True)
        subprocess.run([*COMMAND, spec, "-o", path], check=True, stdout=subprocess.DEVNULL)
        same = json.loads(path.read_bytes())["rows"] == json.loads(whole.read_bytes())["rows"]
        print(f"killed {done} times: {'the same rows' if same else 'OTHER ROWS'} as undisturbed")


def parts(path: Path) -> int:
    """Finished chunks of a sweep on its way."""
    return len(list(path.with_name(f"{path.name}.parts").glob("part-*.json")))


def toml(spec: dict) -> str:
    """The spec as a file: values of TOML, but for true and false, are written as those of JSON."""
    tables = {name: value for name, value in spec.items() if isinstance(value, dict)}
    top = [f"{name} = {json.dumps(value)}" for name, value in spec.items() if name not in tables]
    below = [f"[{name}]\n" + "\n".join(f"{k} = {json.dumps(v)}" for k, v in table.items()) for name, table in tables.items()]
    return "\n".join([*top, *below]) + "\n"


if __name__ == "__main__":
    rate()
    if "--kills" in sys.argv:
        kills(int(sys.argv[sys.argv.index("--kills") + 1]))
