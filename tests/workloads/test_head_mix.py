import pytest
from simattn.facts import UserError
from simattn.workloads import Tiling, TokenLayout
from simattn.workloads.families import Band, Elastic, HeadKind, HeadMix
from simattn.workloads.heads import heads_of_kinds

LAYOUT, TILES = TokenLayout(grid=(4096,)), Tiling(q=(64,), kv=(64,))
DUO = (
    HeadKind(share=0.25, family="band", params={"causal": True}),
    HeadKind(share=0.75, family="band", params={"window": 256, "sinks": 64}),
)


@pytest.mark.parametrize(("shares", "heads", "wanted"), [
    ([0.5, 0.5], 3, [2, 1]), ([1, 1, 1], 8, [3, 3, 2]), ([473, 278, 153, 89, 31], 32, [15, 8, 5, 3, 1]), ([0.9, 0.1], 1, [1, 0]),
])  # fmt: skip
def test_whole_heads_of_each_kind(shares, heads, wanted):
    assert heads_of_kinds(shares, heads) == wanted


def test_each_kind_is_its_family():
    s = HeadMix(heads=DUO).schedule_heads(LAYOUT, TILES, 8)
    full, streaming = Band(causal=True).schedule(LAYOUT, TILES), Band(window=256, sinks=64).schedule(LAYOUT, TILES)
    assert [g.copies for g in s.groups] == [2, 6]
    assert (s.visited, s.pairs) == (2 * full.visited + 6 * streaming.visited, 2 * full.pairs + 6 * streaming.pairs)


def test_kinds_that_draw_have_seeds_of_their_own():
    drawn = HeadKind(share=1, family="pooled_select", params={"top_k": 4})
    masks = HeadMix(heads=(drawn, drawn), seed=3).schedule_heads(LAYOUT, TILES, 2).to_mask()
    assert (masks[0] != masks[1]).any()


def test_heads_that_are_not_computed_are_not_launched():
    s = HeadMix(heads=(*DUO, HeadKind(share=1.0, family="none"))).schedule_heads(LAYOUT, TILES, 8)
    assert s.copies == 4


def test_without_heads_it_is_refused():
    with pytest.raises(UserError, match="at least one kind"):
        HeadMix(heads=(HeadKind(share=1.0, family="none"),))


def test_spans_grow_with_the_sequence():
    elastic = Elastic(spans=((1, 0, 0.125), (1, 1024, 0.0)))
    for tokens, widest in ((8192, [16, 16]), (32768, [64, 16])):
        s = elastic.schedule_heads(TokenLayout(grid=(tokens,)), TILES, 2)
        per_head = s.counts.visited.reshape(len(s.groups), -1).max(1)
        assert sorted(per_head.tolist()) == sorted(set(widest))
    assert Elastic(spans=((1, 10, 0.0),)).schedule(LAYOUT, TILES).max_visited == 2
