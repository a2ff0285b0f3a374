"""How long `simattn validate --table` takes on a file of 2,000 rows that it has not seen, in a process of its own.

python -P benchmarks/validation.py
"""

from __future__ import annotations

import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ROWS = 2000
GPUS = {"a100": ["fa2", "triton"], "h100": ["fa3", "cudnn", "triton"], "h200": ["fa3"], "b200": ["fa4", "cudnn"], "l40s": ["fa2"]}


def table(rows: int) -> str:
    """Random calls of published kernels, as JSON lines; one in fifty is of a kernel that nobody knows."""
    draw = random.Random(0)
    lines = []
    for number in range(rows):
        gpu = draw.choice(list(GPUS))
        heads, tokens = draw.choice([8, 16, 32, 64]), draw.choice([512, 1024, 2048, 4096, 8192, 16384, 32768])
        window = draw.choice([0, 0, 128, 1024])
        row = {
            "id": str(number),
            "table": "benchmark",
            "gpu": gpu,
            "kernel": draw.choice(GPUS[gpu]) if number % 50 else "mystery",
            "phase": "prefill",
            "dtype": "bf16",
            "latency_ms": draw.uniform(0.05, 50),
            "batch": draw.choice([1, 2, 4, 8]),
            "q_heads": heads,
            "kv_heads": draw.choice([heads, heads // 4, heads // 8]),
            "seq_q": tokens,
            "seq_kv": tokens,
            "head_dim": draw.choice([64, 128]),
            "pattern": "sliding_window" if window else draw.choice(["causal", "dense"]),
            "pattern_params": {"window": window} if window else {},
        }
        lines.append(json.dumps(row))
    return "\n".join(lines)


def main() -> None:
    """Print the time, and how many rows were simulated and skipped."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "runs.jsonl"
        path.write_text(table(ROWS))
        command = [sys.executable, "-P", "-c", "from simattn.cli import main; main()", "validate", "--table", str(path), "--json"]
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)  # compiles, where that is due
        begin = time.perf_counter()
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds = time.perf_counter() - begin
    rows = json.loads(done.stdout)["rows"]
    simulated = sum(row["error"] is not None for row in rows)
    print(f"{seconds:.1f} s for {len(rows)} rows: {simulated} simulated, {len(rows) - simulated} skipped with a reason")
    assert all(row["skipped"] for row in rows if row["error"] is None)


if __name__ == "__main__":
    main()
