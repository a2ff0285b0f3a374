import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simattn.facts import UserError
from simattn.workloads import Tiling, TokenLayout
from simattn.workloads.families import Strided

TILES = Tiling(q=(32,), kv=(32,))
BLOCKS = 13
LAYOUT = TokenLayout(grid=(BLOCKS * 32,))


def kept(family, head):
    """The rule in words, block by block."""
    i, j = np.arange(BLOCKS)[:, None], np.arange(BLOCKS)
    away = np.abs(i - j)
    mask = (j < family.sinks) | (i < family.global_rows)
    if family.local:
        mask |= away < family.local
    if family.span:
        mask |= i // family.span == j // family.span
    if family.stride:
        mask |= (j + family.phase + family.head_step * head) % family.stride < family.stripe
    if family.diagonals:
        mask |= away % family.diagonals < family.thick
    if family.powers:
        mask |= (away > 0) & (away & (away - 1) == 0)
    return mask & (i >= j) if family.causal else mask


@settings(deadline=None)
@given(
    st.fixed_dictionaries(
        {
            "causal": st.booleans(),
            "local": st.integers(0, 3),
            "span": st.integers(0, 4),
            "sinks": st.integers(0, 2),
            "global_rows": st.integers(0, 2),
            "stride": st.integers(0, 5),
            "stripe": st.integers(1, 2),
            "phase": st.integers(0, 3),
            "head_step": st.integers(0, 3),
            "diagonals": st.integers(0, 5),
            "powers": st.booleans(),
        }
    )
)
def test_a_row_keeps_what_any_rule_keeps(params):
    if not any(params[name] for name in ("local", "span", "stride", "diagonals", "powers")):
        return
    family = Strided(block=32, **params)
    s = family.schedule_heads(LAYOUT, TILES, 3)
    wanted = {kept(family, head).tobytes() for head in range(3)}
    assert {mask.tobytes() for mask in s.to_mask()} == wanted
    assert s.copies == 3


def test_random_blocks_are_further_ones():
    plain = Strided(block=32, local=2, sinks=1).schedule(LAYOUT, TILES).to_mask()[0]
    more = Strided(block=32, local=2, sinks=1, random=3, seed=1).schedule(LAYOUT, TILES).to_mask()[0]
    others = np.arange(BLOCKS) + 1 - plain.sum(1)
    assert (more[plain]).all()
    assert (more.sum(1) - plain.sum(1)).tolist() == np.minimum(others, 3).tolist()


def test_dense_heads_are_the_last_ones():
    s = Strided(block=32, local=2, dense_heads=1).schedule_heads(LAYOUT, TILES, 4)
    assert [(g.copies, int(s.counts.visited[g.first_row : g.first_row + g.rows].sum())) for g in s.groups] == [
        (3, 2 * BLOCKS - 1),
        (1, BLOCKS * (BLOCKS + 1) // 2),
    ]


def test_no_rule_is_refused():
    with pytest.raises(UserError, match="at least one of local"):
        Strided(sinks=1)
