"""Systems as data: every entry is usable, its formulas have values, and a mistake in one is a line."""

import pytest
from simattn.facts import UserError
from simattn.workloads import Attention, Gemm, Host, Memory, Pattern, Policy, Sort, models, systems
from simattn.workloads.families import family_type
from simattn.workloads.layout import Tiling
from simattn.workloads.plan import _numbers, _side
from simattn.workloads.system import SCHEDULE_NAMES

TOY = """
name = "toy"
title = "Toy"
family = "band"
summary = "a window, and what would choose it"
params = { window = 512 }
launches = "Hq"

[[parts]]
name = "first"
family = "band"
params = { window = 64 }
launches = 2

[[side]]
name = "mean pool"
kind = "stream"
bytes = "(Hq + Hk) * N * d * e"
launches = 2

[[side]]
name = "scores"
kind = "gemm"
shape = ["ceil(N / 64)", "ceil(M / 64)", "d"]
copies = "Hq * B"
bytes = "4 * ceil(N / 64) * ceil(M / 64) * Hq"

[[side]]
name = "top-k"
kind = "sort"
bytes = "4 * ceil(N / 64) * ceil(M / 64) * Hq"
passes = 3
every = 10

[[side]]
name = "plan"
when = "after"
kind = "host"
seconds = "1e-6 * (Hq + rows) + 0 * visited * window / first_window"

[workload]
q_heads = 4
kv_heads = 2
head_dim = 64
seq = 2048

[meta]
rule = { kind = "recalled", source = "a test" }
"""


@pytest.fixture
def written(tmp_path):
    """Write the toy with some lines replaced, and give its path."""

    def write(*changes):
        text = TOY
        for old, new in changes:
            assert old in text
            text = text.replace(old, new)
        path = tmp_path / "toy.toml"
        path.write_text(text, encoding="utf-8")
        return str(path)

    return write


def plan_of(path, params=None):
    pattern = Pattern(path, params, published=True)
    workload = pattern.system.workload
    return pattern.plan(workload.problem(), workload.layout(), lambda mask_class, kernel: Tiling(q=(128,), kv=(64,)))


def test_a_file_makes_a_plan_in_stream_order(written):
    plan = plan_of(written())
    assert [(type(op), op.name) for op in plan] == [
        (Memory, "mean pool"),
        (Gemm, "scores"),
        (Sort, "top-k"),
        (Attention, "attention"),
        (Attention, "first"),
        (Host, "plan"),
    ]
    pool, scores, top, main, first, host = plan
    assert pool == Memory("mean pool", 6 * 2048 * 64 * 2, 2)
    assert scores == Gemm("scores", 2.0 * 32 * 32 * 64 * 4, 4 * 32 * 32 * 4, 1, "bf16", (32, 32, 64))
    assert top == Sort("top-k", 4 * 32 * 32 * 4, 1, passes=3.0, every=10.0)
    assert (main.launches, first.launches) == (4, 2)
    assert first.schedule.pairs < main.schedule.pairs
    assert host.seconds == pytest.approx(1e-6 * (4 + 4 * 16))


def test_parts_have_parameters_of_their_own(written):
    path = written()
    (_, _, _, main, first, _), changed = plan_of(path), plan_of(path, {"first.window": 512})
    assert changed[3].schedule.pairs == main.schedule.pairs == changed[4].schedule.pairs > first.schedule.pairs
    with pytest.raises(UserError, match="unknown part 'frst'; did you mean 'first'"):
        plan_of(path, {"frst.window": 512})
    with pytest.raises(UserError, match=r"part first: unknown parameter 'windw'"):
        plan_of(path, {"first.windw": 512})


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ('family = "band"\nsummary', 'family = "bnd"\nsummary', "unknown family 'bnd'; did you mean 'band'"),
        ('"first"\nfamily = "band"', '"first"\nfamily = "bnd"', "unknown family 'bnd'; did you mean 'band'"),
        ("(Hq + Hk) * N", "(Hq + Hx) * N", "unknown name 'Hx'"),
        ('launches = "Hq"', 'launches = "Hq *"', "is no expression"),
        ('launches = "Hq"', 'launches = "visited"', "unknown name 'visited'"),
        ('kind = "stream"', 'kind = "steam"', "expected one of stream, permute, gather, gemm, sort, host"),
        ('kind = "stream"\nbytes = "(Hq + Hk) * N * d * e"', 'kind = "stream"', "mean pool: stream needs bytes"),
        ('copies = "Hq * B"', 'flops = "N"', "scores: give either flops or shape"),
        ('name = "first"', 'name = "toy"', "parts need names of their own"),
        ("seq = 2048", "sequence = 2048", "unknown field in [workload] 'sequence'"),
        ("seq = 2048", "", "a workload names a model"),
        ("every = 10", "every = 0.5", "side[2].every"),
        ('title = "Toy"', 'title = "Toy"\nexactness = "approximate"', "an approximate entry says why"),
    ],
)
def test_a_mistake_is_one_line(written, old, new, said):
    with pytest.raises(UserError) as caught:
        systems.load(written((old, new)))
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("name", [name for name in systems.names() if name not in ("mask_file", "mask_function")])
def test_every_formula_of_every_entry_has_a_value(name):
    pattern = Pattern(name, published=True)
    layout = pattern.default_layout()
    names = _numbers(pattern.system, (pattern.family, *pattern.parts), pattern.system.workload.problem(), layout)
    names |= dict.fromkeys(SCHEDULE_NAMES, 1000)
    for side in pattern.system.side:
        assert _side(side, names)


@pytest.mark.parametrize("name", systems.names())
def test_every_entry_says_where_it_is_from(name):
    system = systems.load(name)
    assert system.name == name
    if system.workload.model:
        assert models.load(system.workload.model).layout(system.workload.shape).tokens
    assert all(origin.source for origin in system.meta.values())
    covered = {key.split(".")[0] for key in system.meta}
    # The rule's origin stands for parts and policy too, where these have none of their own; costs always have one.
    assert "rule" in covered or not (system.parts or system.policy != Policy())
    assert not system.side or "side" in covered, f"{name}: [meta] has no source of side"
    assert all(claim.source for claim in system.claims)
    if system.tier == 1:
        assert system.paper
    assert family_type(system.family)
