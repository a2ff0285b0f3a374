"""Every system by name on three GPUs: an answer that adds up, with all that runs beside; what cannot run says so."""

import pytest
from simattn.facts import UserError
from simattn.kernels import kernels
from simattn.simulator import STAGES, predict, question
from simattn.workloads import systems

GPUS = ("h100", "b200", "rtx_5090")
OF_A_FILE = ("mask_file", "mask_function")
"""Patterns that are what a user's file says."""

ELSEWHERE: dict[str, str] = {"fusemax": "fusemax"}
"""Systems that run on other hardware than GPUs, and on which."""

CANNOT: dict[tuple[str, str], str] = {}
"""(system, GPU): what the refusal says, where no kernel on the GPU can run it."""

PUBLISHED = [
    "adaspa",
    "anchor",
    "annsa",
    "axial",
    "biformer",
    "blade",
    "blasst",
    "combiner",
    "sparse-frontier",
    "delta",
    "delta-llm",
    "dhsa",
    "unified-view",
    "dma",
    "double-sparsity",
    "draft",
    "dsvt",
    "favit",
    "flashbias",
    "flexprefill",
    "fna",
    "freeswim",
    "fsa",
    "fusemax",
    "gna",
    "halonet",
    "hip",
    "hisa",
    "infllm-v2",
    "kinetics",
    "landmark",
    "lightning",
    "lightning2",
    "llsa",
    "minference",
    "mminference",
    "moa",
    "moh",
    "monarch-rt",
    "mustafar",
    "nosa",
    "nsa",
    "paro",
    "pbs",
    "power",
    "psa",
    "pt-dit",
    "radial",
    "re-ttention",
    "ring",
    "routing",
    "s2",
    "sale",
    "scale-dit",
    "scatterbrain",
    "sea",
    "seer",
    "sla",
    "spark",
    "sparse-vdit",
    "sparsed",
    "sparsifiner",
    "sqa",
    "ssa",
    "tca",
    "tidal",
    "token-sparse",
    "vmoba",
    "zipvl",
]
"""Systems that must be there, beside any others."""

BASELINES = [
    "dense",
    "causal",
    "sliding-window",
    "streaming-llm",
    "bigbird",
    "longformer",
    "sparse-transformer",
    "sparse-transformer-strided",
    "logsparse",
    "swin",
    "blocked",
    "sta",
    "svg",
    "svg2",
    "vsa",
    "nabla",
    "spargeattn",
    "xattention",
    "duoattention",
    "moba",
    "dsa",
    "quest",
    "paged-gqa",
    "mla-decode",
]

NAMES = [name for name in systems.names() if name not in OF_A_FILE]
MOST_HEADS = 2
"""Query heads that a call is cut down to, beside those of one K/V head."""


def fewer_heads(name):
    """The published call with few heads: all that a schedule can be, at a part of the cost."""
    problem = question(name).problem
    kv_heads = min(problem.kv_heads, max(1, MOST_HEADS // problem.gqa_group))
    return {"kv_heads": kv_heads, "q_heads": kv_heads * problem.gqa_group, "batch": 1}


def check(p, system):
    times = [stage.latency_ms for stage in p.waterfall]
    assert [stage.stage for stage in p.waterfall] == list(STAGES)
    assert times == sorted(times)
    assert 0 < times[0] <= p.latency_ms == times[-1]
    assert p.latency_ms_low < p.latency_ms < p.latency_ms_high
    assert p.bounds.flop > 0
    assert p.bounds.tile_mean > 0
    assert p.density.pairs > 0
    assert all(0 <= share <= 1 + 1e-9 for share in p.utilization.values())
    # The attention kernels and what runs beside them are all there is.
    beside = sum(op.latency_ms for op in p.side)
    assert sum(op.latency_ms for op in p.attention) + beside == pytest.approx(p.latency_ms)
    assert {side.name for side in system.side} <= {op.op for op in p.side}
    assert {part.name for part in system.parts} <= {op.op for op in p.attention}
    assert p.provenance.exactness == (system.why or "exact")


@pytest.mark.parametrize("hw", GPUS)
@pytest.mark.parametrize("name", NAMES)
def test_a_system_has_an_answer(name, hw):
    system = systems.load(name)
    hw = ELSEWHERE.get(name, hw)
    if (name, hw) in CANNOT:
        with pytest.raises(UserError, match=CANNOT[name, hw]) as caught:
            predict(name, hw, **fewer_heads(name))
        assert "\n" not in str(caught.value)
        return
    check(predict(name, hw, **fewer_heads(name)), system)


@pytest.mark.parametrize("name", NAMES)
def test_kernels_that_entries_name_exist(name):
    system = systems.load(name)
    for own in (system.kernel, *(part.kernel for part in system.parts)):
        assert own is None or kernels.load(own).name


@pytest.mark.parametrize(("names", "tier"), [(PUBLISHED, 1), (BASELINES, 0)], ids=["published", "baselines"])
def test_every_name_is_an_entry(names, tier):
    assert {name: systems.load(name).tier for name in names} == dict.fromkeys(names, tier)


def test_what_cannot_run_is_no_longer_than_it_must_be():
    assert {name for name, _ in CANNOT} <= set(NAMES)
    assert set(ELSEWHERE) <= set(NAMES)


def test_side_kernels_say_what_they_move():
    (merge,) = [op for op in predict("radial", "h100", q_heads=4, kv_heads=4).side if op.op == "merge"]
    assert merge.bytes == 3 * 4 * 30 * 48 * 80 * 128 * 2
