import pytest
from simattn.validation import Measurement
from simattn.validation.noise import noise_floor


def run(ms, batch=1, tokens=4096, window=0, **changes):
    fields = {
        "id": "x",
        "table": "t",
        "gpu": "h100_sxm",
        "kernel": "fa3",
        "phase": "prefill",
        "dtype": "bf16",
        "q_heads": 8,
        "kv_heads": 8,
        "head_dim": 128,
        "pattern": "sliding_window" if window else "causal",
        "pattern_params": {"window": window} if window else {},
    }
    return Measurement(**{**fields, "latency_ms": ms, "batch": batch, "seq_q": tokens, "seq_kv": tokens, **changes})


def test_windows_of_the_same_work():
    floor = noise_floor([run(1.02, batch=2, window=128), run(1.0, tokens=8192, window=128)])
    assert (floor.windows, floor.windows_n) == (pytest.approx(0.02), 1)
    # A window that is much of the sequence is not the same work at half the batch.
    assert noise_floor([run(1.02, batch=2, window=1024), run(1.0, tokens=8192, window=1024)]).windows is None


def test_batches_on_a_line_have_no_noise():
    line = [run(0.1 + 0.5 * batch, batch=batch) for batch in (1, 2, 4)]
    assert noise_floor(line).batches == pytest.approx(0, abs=1e-12)
    off = [line[0], run(1.1 * 1.1, batch=2), line[2]]
    assert noise_floor(off).batches == pytest.approx(0.1 / (14 / 9) ** 0.5)
    assert noise_floor([run(0.1, batch=b) for b in (1, 2, 4)]).batches_n == 0


def test_a_sibling_that_is_slower_throughout_is_no_noise():
    ours = [run(1.0, batch=b) for b in (1, 3, 5)]
    floor = noise_floor(ours, [run(1.2, batch=b) for b in (1, 3, 5)])
    assert (floor.sibling, floor.sibling_n) == (pytest.approx(0), 3)


def test_decodes_and_suspect_rows_say_nothing():
    assert noise_floor([run(1.0, batch=b, phase="decode") for b in (1, 2, 4)]).batches is None
    assert noise_floor([run(1.0, batch=b, suspect=True) for b in (1, 2, 4)]).batches is None
