"""Rows as a comparison makes them, for tests of what is done with them."""

import pytest
from simattn.validation import Row


@pytest.fixture
def row():
    """Makes a row that was simulated; fields may be given."""

    def make(id="a", predicted=1.0, measured=1.0, **changes):
        fields = {
            "gpu": "h100_sxm",
            "kernel": "fa3",
            "pattern": "causal",
            "table": "t",
            "phase": "prefill",
            "head_dim": 128,
            "tokens": 4096,
            "flops": 1e9,
            "bytes": 1e6,
            "flop_bound_ms": 0.5,
            "tile_bound_ms": 0.6,
            "worst_tile_ms": 0.7,
            "low_ms": 0.9,
            "high_ms": 1.1,
        }
        return Row(**{"id": id, "predicted_ms": predicted, "measured_ms": measured, **fields, **changes})

    return make
