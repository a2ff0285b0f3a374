from simattn.validation import Measurement
from simattn.validation.protocol import role

SHAPE = {
    "table": "t",
    "gpu": "h100_sxm",
    "kernel": "fa3",
    "phase": "prefill",
    "dtype": "bf16",
    "pattern": "causal",
    "head_dim": 128,
}


def roles(n=1000, **changes):
    return [role(Measurement(**{**SHAPE, "id": f"row {i}", **changes})) for i in range(n)]


def test_half_of_the_dense_rows_is_fitted():
    assert 450 < roles().count("fit") < 550


def test_everything_else_is_scored():
    for changes in ({"pattern": "sliding_window"}, {"pattern": "dense"}, {"pattern": None}, {"head_dim": 64}, {"suspect": True}):
        assert set(roles(50, **changes)) == {"score"}


def test_the_half_is_one_of_the_id_alone():
    # Written down: a change of the hash would let rows that were fitted be scored.
    assert roles(8) == ["score", "fit", "score", "score", "score", "score", "score", "fit"]
    assert roles(50) == roles(50, latency_ms=3.0, table="u", gpu="l40s", kernel="fa2", batch=7)
