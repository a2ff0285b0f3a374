"""Loop programs: what a template becomes for a tile and a GPU, and that it runs."""

from functools import cache
from math import prod

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from simattn.hwspecs import gpus
from simattn.kernels import KINDS, UNITS, build, kernels, programs
from simattn.kernels.program import Template

from simattn import UserError

ALL_HW = {gpus.load(name).arch: name for name in reversed(gpus.names())}
FA3, FA4 = kernels.load("fa3"), kernels.load("fa4")
WITHOUT_POLYNOMIAL = msgspec.structs.replace(FA4, softmax=msgspec.structs.replace(FA4.softmax, exp_on_fma={}))


def built(
    profile, hw, q_rows=128, kv_rows=128, d=128, d_v=None, stages=2, warps=16, mask_alu=2.0, rate=None, template=None, **rest
):
    spec = gpus.load(hw) if isinstance(hw, str) else hw
    return build(
        profile,
        spec,
        q_rows=q_rows,
        kv_rows=kv_rows,
        head_dim=d,
        head_dim_v=d if d_v is None else d_v,
        element_bytes=2,
        stages=stages,
        warps=warps,
        tensor_rate=rate or spec.tensor_flops_per_clk("bf16"),
        mask_alu=mask_alu,
        template=programs.load(template) if isinstance(template, str) else template,
        **rest,
    )


def form(*roles, rows=0):
    return msgspec.convert({"name": "made", "title": "made", "source": "this test", "rows": rows, "roles": roles}, Template)


def op(name, work=("barrier",), **others):
    return {"name": name, "work": work, **others}


def edges(program, name):
    """(op, distance, on_issue) of what an op comes after."""
    own = next(o for o in program.ops if o.name == name)
    return {(program.ops[e.op].name, e.distance, e.on_issue) for e in own.after}


# -- roles, shares, dependences --------------------------------------------------------------------------------------


def test_one_role_a_share_and_one_op_a_share():
    program = built(FA4, "b200", q_rows=256)
    assert program.roles == ("load", "mma", "softmax 0", "softmax 1")
    assert [o.name for o in program.ops] == ["k", "v", "pv 0", "qk 0", "pv 1", "qk 1", "max 0", "exp 0", "max 1", "exp 1"]
    assert [o.role for o in program.ops] == [0, 0, 1, 1, 1, 1, 2, 2, 3, 3]


def test_a_tile_of_one_share_has_no_numbers():
    assert built(FA4, "b200", q_rows=128).roles == ("load", "mma", "softmax")
    assert built(FA3, "h100", q_rows=192).roles == ("load", "math 0", "math 1", "math 2")


def test_rows_of_a_template_without_shares_stay_together():
    program = built(kernels.load("triton"), "a100", q_rows=256, kv_rows=64, warps=8)
    assert program.roles == ("warps",)
    assert [o.name for o in program.ops] == ["k", "v", "ready", "qk", "softmax", "pv"]


@given(st.sampled_from([1, 2, 3]), st.sampled_from(["wgmma_pingpong", "backward_wgmma"]))
def test_shares_add_up_to_the_tile(shares, template):
    whole = built(FA3, "h100", q_rows=64, d=192, template=template).unit_cycles("masked")
    several = built(FA3, "h100", q_rows=64 * shares, d=192, template=template).unit_cycles("masked")
    for unit in ("tensor", "ex2", "fma", "alu"):
        assert several[unit] == pytest.approx(shares * whole[unit])


def test_dependences():
    program = built(FA4, "b200", q_rows=256, stages=3)
    assert edges(program, "k") == {("qk 0", 3, False), ("qk 1", 3, False)}
    assert edges(program, "v") == {("pv 0", 3, False), ("pv 1", 3, False)}
    assert edges(program, "pv 1") == {("v", 0, False), ("exp 1", 0, False)}
    assert edges(program, "max 0") == {("qk 0", 0, False)}
    serial = built(kernels.load("fa2"), "a100", kv_rows=64, warps=4)
    assert edges(serial, "v") == {("pv", 1, False)}


def test_only_other_roles_have_to_be_told():
    program = built(FA3, "h100")
    waits = {(program.ops[e.op].role == o.role, e.wait) for o in program.ops for e in o.after if not e.on_issue}
    assert waits == {(False, FA3.timing.handoff_cycles), (True, 0)}


def test_warpgroups_take_turns():
    """QK runs a tile ahead of PV, so it waits for the PV that the one before issued a tile ago; the first one goes round."""
    program = built(FA3, "h100", q_rows=192)
    assert ("pv 2", 2, True) in edges(program, "qk 0")
    assert ("pv 0", 1, True) in edges(program, "qk 1")
    assert ("pv 1", 1, True) in edges(program, "qk 2")
    assert edges(built(FA3, "h100", q_rows=64), "qk 0") == {("k", 0, False)}


def test_ahead():
    program = built(FA3, "h100")
    assert {o.name: o.ahead for o in program.ops} == {
        "k": 0, "v": 0, "qk 0": 1, "pv 0": 0, "softmax 0": 1, "qk 1": 1, "pv 1": 0, "softmax 1": 1,
    }  # fmt: skip
    deep = built(kernels.load("triton"), "a100", kv_rows=64, stages=4, warps=8)
    assert [o.ahead for o in deep.ops if o.loads] == [3, 3]


def test_after_all_shares():
    program = built(FA3, "h100", template="backward_wgmma")
    assert edges(program, "dq 0") == {("ds 0", 0, False), ("ds 1", 0, False)}
    assert edges(program, "ds 1") == {("dp 1", 0, False), ("dq 0", 1, False), ("dq 1", 1, False)}
    assert edges(program, "out 1") == {("dq 1", 0, False), ("reduce 1", 1, False)}


def test_an_op_that_is_not_there():
    lost = form({"name": "warps", "ops": [op("softmax", after=["qk"])]})
    with pytest.raises(UserError, match="loop program made: softmax comes after qk, which is not there"):
        built(FA3, "h100", template=lost)


@pytest.mark.parametrize("text", ["k-", "k-some", "k - 1", ""])
def test_a_dependence_that_cannot_be_read(text):
    lost = form({"name": "warps", "ops": [op("k", work=["load_k"]), op("softmax", after=[text])]})
    with pytest.raises(UserError, match="loop program made: softmax comes after"):
        built(FA3, "h100", template=lost)


@pytest.mark.parametrize(("turn", "copies"), [("pv", "roles"), ("qk", "one")])
def test_turns_at_what_no_share_has(turn, copies):
    lost = form({"name": "math", "copies": copies, "ops": [op("qk", work=["qk"], turn=turn)]}, rows=64)
    with pytest.raises(UserError, match=f"loop program made: qk waits its turn at {turn}"):
        built(FA3, "h100", template=lost)


def test_work_that_is_not_in_the_vocabulary():
    with pytest.raises(msgspec.ValidationError, match="Invalid enum value 'think'"):
        form({"name": "warps", "ops": [op("softmax", work=["think"])]})


def test_what_waits_for_the_rows_of_a_cta():
    assert [o.name for o in built(FA4, "b200", q_rows=256).ops if o.needs_q] == ["qk 0", "qk 1"]
    assert [o.name for o in built(FA4, "b200", template="backward_tcgen05").ops if o.needs_q] == ["kq"]


def test_loads():
    program = built(FA4, "b200", d=192, d_v=128)
    assert [(o.name, o.loads, o.load_bytes["plain"]) for o in program.ops if o.loads] == [
        ("k", "k", 128 * 192 * 2),
        ("v", "v", 128 * 128 * 2),
    ]
    program = built(FA4, "b200", kv_rows=64, d=192, d_v=128, template="backward_tcgen05")
    moved = [(o.name, o.loads, o.load_bytes["plain"]) for o in program.ops if o.load_bytes["plain"]]
    assert moved == [("q", "k", 64 * 192 * 2), ("do", "v", 64 * 128 * 2), ("add", "", 64 * 192 * 4)]


# -- cycles of the units ---------------------------------------------------------------------------------------------


def test_flash_attention_4_forward():
    """ArXiv 2603.05451, table 1: tensor, shared memory and exponentials for M = N = d = 128, and for M = 256."""
    small = built(WITHOUT_POLYNOMIAL, "b200").unit_cycles("plain")
    assert (small["tensor"], small["smem"], small["ex2"]) == (1024, 768, 1024)
    large = built(WITHOUT_POLYNOMIAL, "b200", q_rows=256).unit_cycles("plain")
    assert (large["tensor"], large["smem"], large["ex2"]) == (2048, 1536, 2048)


def test_flash_attention_4_backward():
    """Its table 3, for one CTA: eight factors of ten from shared memory, dS written there, dQ in fp32 written and read."""
    program = built(WITHOUT_POLYNOMIAL, "b200", template="backward_tcgen05")
    cycles = program.unit_cycles("plain")
    assert (cycles["tensor"], cycles["smem"], cycles["ex2"]) == (2560, 3328, 1024)
    tile = 128 * 128 * 2 / 128
    assert {o.name: o.units["plain"]["smem"] / tile for o in program.ops if "smem" in o.units["plain"]} == {
        "kq": 2, "dk": 1, "dq": 2, "dp": 2, "dv": 1, "ds": 1, "out": 2, "reduce": 2,
    }  # fmt: skip


@given(st.sampled_from([64, 128, 192]), st.sampled_from([64, 128]), st.sampled_from([64, 128]))
def test_flash_attention_4_backward_formula(queries, d, keys):
    """Its text: (4 M d + 3 N d + M N) / 64 read, M N / 64 written, M d / 16 for dQ (M queries, N keys)."""
    cycles = built(FA4, "b200", q_rows=keys, kv_rows=queries, d=d, template="backward_tcgen05").unit_cycles("plain")
    again = (-(-queries // 128) - 1) * keys * d / 64
    wanted = (4 * queries * d + 3 * keys * d + queries * keys) / 64 + queries * keys / 64 + queries * d / 16
    assert cycles["smem"] == wanted + again


@pytest.mark.parametrize(
    ("kernel", "hw", "forward", "backward", "q_rows", "warps"),
    [
        ("fa2", "a100", "mma_sync", "backward_mma_sync", 128, 8),
        ("fa3", "h100", "wgmma_pingpong", "backward_wgmma", 128, 12),
        ("fa4", "b200", "tcgen05", "backward_tcgen05", 128, 16),
    ],
)
def test_backward_does_five_products_for_two_and_the_exponentials_once(kernel, hw, forward, backward, q_rows, warps):
    profile = kernels.load(kernel)
    ahead, back = (
        built(profile, hw, q_rows=q_rows, warps=warps, template=name).unit_cycles("plain") for name in (forward, backward)
    )
    assert back["tensor"] == 2.5 * ahead["tensor"]
    assert back["ex2"] == ahead["ex2"]
    assert back["smem"] > ahead["smem"]


def test_flash_attention_2_backward_reads_what_its_warp_layouts_read():
    """Eight warps on 64 queries x 128 keys, d 128, in grids of 2 x 4, 4 x 2 and 2 x 4: its flash_bwd_launch_template.h."""
    program = built(kernels.load("fa2"), "a100", q_rows=128, kv_rows=64, warps=8, template="backward_mma_sync")
    queries, keys, d = 64, 128, 128
    scores = (queries * 4 + keys * 2) * d
    gradients_of_keys = (keys * 2 + d * 4) * queries
    gradient_of_queries = (queries * 4 + d * 2) * keys
    written = 2 * queries * keys
    wanted = (2 * scores + 2 * gradients_of_keys + gradient_of_queries + written) * 2 / 128
    assert program.unit_cycles("plain")["smem"] == wanted == 4864


def test_flash_attention_3_backward_keeps_p_and_ds_in_registers():
    """Two warpgroups of 64 keys; each reads all of Q and dO, half of K and V, all of dS and half of the columns of K."""
    program = built(FA3, "h100", q_rows=128, kv_rows=64, template="backward_wgmma")
    queries, keys, d = 64, 128, 128
    scores = (keys + 2 * queries) * d
    gradients_of_keys = 2 * queries * d
    gradient_of_queries = (2 * queries + d) * keys
    elements = 2 * scores + 2 * gradients_of_keys + gradient_of_queries + queries * keys
    assert program.unit_cycles("plain")["smem"] == elements * 2 / 128 + 2 * queries * d * 4 / 128


def test_shares_of_a_gradient_of_queries_divide_its_columns():
    one, two = (built(FA3, "h100", q_rows=rows, kv_rows=64, template="backward_wgmma") for rows in (64, 128))
    first, second = ({o.name: o for o in p.ops} for p in (one, two))
    assert first["out 0"].units["plain"] == {"smem": 64 * 128 * 4 / 128}
    assert second["out 0"].units["plain"] == {"smem": 64 * 64 * 4 / 128}
    assert sum(o.load_bytes["plain"] for o in two.ops if o.name.startswith("add")) == first["add 0"].load_bytes["plain"]


PROFILES = [kernels.load(name) for name in kernels.names()]
# The softmax of FuseMax runs on what multiplies.
FORWARD = [p.name for p in PROFILES if p.major == "q" and not p.latent and not p.chained and p.name != "fusemax"]


@pytest.mark.parametrize("name", FORWARD)
def test_kinds_of_visits(name):
    """Only the scores: less of every unit, and no exponentials. A mask: more ALU, nothing else. Passed over: nothing.

    Scattered keys: addresses for each chunk, and no other work.
    """
    profile = kernels.load(name)
    for arch in profile.archs:
        spec = gpus.load(ALL_HW[arch])
        rows = 256 if profile.program == "tcgen05" else 128
        program = built(profile, spec, q_rows=rows, kv_rows=64, warps=8, mask_alu=2)
        plain, masked, scores, none, scattered = (program.unit_cycles(kind) for kind in KINDS)
        chunks = sum(o.load_bytes["plain"] for o in program.ops if o.loads) / 16
        assert scattered["alu"] == pytest.approx(plain["alu"] + 4 * chunks / spec.units.alu_lanes)
        assert {u: c for u, c in scattered.items() if u != "alu"} == {u: c for u, c in plain.items() if u != "alu"}
        assert all(scores[unit] <= plain[unit] for unit in UNITS)
        assert scores["tensor"] == plain["tensor"] / 2
        assert scores["ex2"] == scores["fma"] == 0
        assert masked["alu"] == pytest.approx(plain["alu"] + rows * 64 * 2 / spec.units.alu_lanes)
        assert {u: c for u, c in masked.items() if u != "alu"} == {u: c for u, c in plain.items() if u != "alu"}
        assert set(none.values()) == {0}
        moved = [sum(o.load_bytes[kind] for o in program.ops) for kind in ("qk_only", "plain", "skipped")]
        # CUTLASS 2.x fetches Q anew with every tile of keys.
        again = rows * 128 * 2 if profile.program == "mma_sync_cold" else 0
        assert moved == [64 * 128 * 2 + again, 2 * 64 * 128 * 2 + again, 0]


def test_output_that_is_summed_up_in_memory():
    """NATTEN on A100: tiles with fewer keys than the head is wide read and write the fp32 output with every visit."""
    profile = kernels.load("natten_ampere")
    wide, narrow = (programs.load(profile.program_of(profile.tiles[0], width)) for width in (128, 64))
    assert (wide.name, narrow.name) == ("mma_sync_sums", "mma_sync_cold")
    moved = []
    for form in (wide, narrow):
        program = build(
            profile, gpus.load("a100"), q_rows=64, kv_rows=64, head_dim=128, head_dim_v=128, element_bytes=2, stages=1, warps=4,
            tensor_rate=2048, mask_alu=0, template=form,
        )  # fmt: skip
        moved.append(program.load_bytes("plain"))
    assert moved[0] - moved[1] == 2 * 64 * 128 * 4


def test_exponentials_by_polynomial():
    hard, soft = (built(p, "b200").unit_cycles("plain") for p in (WITHOUT_POLYNOMIAL, FA4))
    share, lanes = FA4.softmax.exp_on_fma["sm100"], 128
    assert soft["ex2"] == hard["ex2"] * (1 - share)
    assert soft["fma"] == hard["fma"] + 128 * 128 * share * FA4.softmax.polynomial_fma / lanes
    assert {u: soft[u] for u in UNITS if u not in ("ex2", "fma")} == {u: hard[u] for u in UNITS if u not in ("ex2", "fma")}
    on_b300 = [built(p, "b300").unit_cycles("plain") for p in (WITHOUT_POLYNOMIAL, FA4)]
    assert on_b300[0] == on_b300[1]


SHAPES = {
    "q_rows": st.sampled_from([64, 128, 256]),
    "kv_rows": st.sampled_from([32, 64, 128, 176]),
    "d": st.sampled_from([64, 96, 128, 256]),
}


def test_tensor_memory_is_written_faster_than_read():
    spec = gpus.load("b200")
    read, written = spec.units.tmem_read_bytes, spec.units.tmem_write_bytes
    scores = 256 * 128
    assert built(kernels.load("trtllm_gen"), spec, 256).unit_cycles("plain")["tmem"] == pytest.approx(
        # Scores, P in half of their bytes, and the output to registers and back.
        4 * scores / read + 2 * scores / written + 4 * 256 * 128 * (1 / read + 1 / written)
    )


@given(**SHAPES, times=st.floats(1.1, 8), name=st.sampled_from(["fa2", "fa3", "fa4"]))
def test_a_unit_twice_as_fast_takes_half_as_long(q_rows, kv_rows, d, times, name):
    hw = {"fa2": "a100", "fa3": "h100", "fa4": "b200"}[name]
    spec, profile = gpus.load(hw), kernels.load(name)
    slow = built(profile, spec, q_rows, kv_rows, d).unit_cycles("masked")
    faster = built(profile, spec, q_rows, kv_rows, d, rate=times * spec.tensor.bf16_f32).unit_cycles("masked")
    assert faster["tensor"] == pytest.approx(slow["tensor"] / times)
    assert {u: c for u, c in faster.items() if u != "tensor"} == {u: c for u, c in slow.items() if u != "tensor"}
    units: dict[str, tuple[str, ...]] = {"ex2": ("ex2",), "fma": ("fma_lanes",), "smem": ("smem_bytes",)}
    units |= {"tmem": ("tmem_read_bytes", "tmem_write_bytes")} if name == "fa4" else {}
    for unit, leaves in units.items():
        changed = msgspec.structs.replace(spec.units, **{leaf: times * getattr(spec.units, leaf) for leaf in leaves})
        fast = built(profile, msgspec.structs.replace(spec, units=changed), q_rows, kv_rows, d).unit_cycles("masked")
        assert fast[unit] == pytest.approx(slow[unit] / times)
        assert {u: c for u, c in fast.items() if u != unit} == {u: c for u, c in slow.items() if u != unit}


@given(**SHAPES, name=st.sampled_from(["fa2", "fa3", "fa4"]))
def test_multiplications_do_not_depend_on_the_kernel(q_rows, kv_rows, d, name):
    hw = {"fa2": "a100", "fa3": "h100", "fa4": "b200"}[name]
    rows = max(q_rows, 128) if name == "fa4" else q_rows
    cycles = built(kernels.load(name), hw, q_rows, kv_rows, d).unit_cycles("plain")
    assert cycles["tensor"] == pytest.approx(4 * rows * kv_rows * d / gpus.load(hw).tensor.bf16_f32)


@pytest.mark.parametrize("rows", [16, 32, 64, 128])
def test_warps_that_have_no_rows_of_their_own_share_the_keys(rows):
    """Eight warps of mma.sync hold 16 rows at least, so few rows are read to by few of them; these rows they all read."""
    program = built(kernels.load("triton"), "a100", q_rows=rows, kv_rows=64, warps=8)
    tile = 64 * 128 * 2 / 128
    sharing = 8 // (rows // 16)
    own = sharing * rows * 128 * 2 / 128 if sharing > 1 else 0
    assert next(o for o in program.ops if o.name == "qk").units["plain"]["smem"] == rows // 16 * tile + own


@pytest.mark.parametrize(("hw", "warps", "ldmatrix"), [("h100", 4, 112), ("h100", 8, 160), ("a100", 8, 160)])
def test_one_query_token_in_several_warps_reads_shared_memory_as_compiled(hw, warps, ldmatrix):
    """Triton NSA's loop, compiled with Triton 3.4: so many LDSM of four 8x8 matrices a visit, 512 bytes each."""
    program = built(kernels.load("nsa"), hw, q_rows=16, kv_rows=64, warps=warps)
    products = [next(o for o in program.ops if o.name == name).units["plain"]["smem"] for name in ("qk", "pv")]
    assert sum(products) == ldmatrix * 512 / 128


@pytest.mark.parametrize("hw", ["h100", "b200"])
def test_older_instructions_on_newer_gpus(hw):
    """They have neither the rows in vain of a newer one nor its latency, and no tensor memory."""
    profile = kernels.load("flashinfer_bsr")
    small, large = (built(profile, hw, q_rows=rows, kv_rows=64, warps=4) for rows in (32, 64))
    assert large.unit_cycles("plain")["tensor"] == 2 * small.unit_cycles("plain")["tensor"]
    assert large.unit_cycles("plain")["tmem"] == 0
    assert {o.latency["plain"] for o in large.ops if "tensor" in o.units["plain"]} == {24}


@pytest.mark.parametrize(
    ("kernel", "hw", "share"),
    [
        ("triton", "a100", 1),
        ("triton", "rtx_4090", 1 / 4),
        ("triton", "rtx_pro_6000", 1 / 2),
        ("fa3", "h100", 1),
        ("fa3", "h20", 958 / 4096),
    ],
)
def test_slow_tensor_cores_move_fewer_registers(kernel, hw, share):
    """The same instructions, and so the same registers, in more time: softmax of others costs less of it."""
    profile = kernels.load(kernel)
    softmax = next(op for op in built(profile, hw).ops if op.name.startswith("softmax"))
    contention = profile.timing.contention * share
    assert softmax.steals["plain"] == pytest.approx(contention * softmax.length["plain"], rel=0.01)


@pytest.mark.parametrize(
    ("kernel", "hw", "taken"),
    [
        # An m16n8k16 keeps the tensor core of a scheduler busy for 8, 16 and 32 cycles, of the 24.6 until its result is there.
        ("fa2", "a100", True),
        ("fa2", "l40s", True),
        ("fa2", "rtx_pro_6000", True),
        ("fa2", "rtx_4090", False),
        ("fa2", "h100", True),
        # Products of whole warpgroups are queued.
        ("fa3", "h100", False),
        ("sage2_hopper", "h100", False),
        # Nothing is fetched ahead: each visit waits for its own loads.
        ("natten_ampere", "a100", False),
    ],
)
def test_ctas_take_turns_where_warps_wait_for_each_product(kernel, hw, taken):
    assert built(kernels.load(kernel), hw).by_warps is taken


def test_only_register_accumulators_are_fought_over():
    contended = built(FA3, "h100")
    by_name = {o.name: o for o in contended.ops}
    assert by_name["softmax 0"].steals["plain"] == FA3.timing.contention * by_name["softmax 0"].length["plain"] > 0
    assert {by_name[name].steals["plain"] for name in ("k", "v", "qk 0", "pv 1")} == {0}
    backward = {o.name: o for o in built(FA3, "h100", template="backward_wgmma").ops}
    assert backward["reduce 0"].steals["plain"] == 0 < backward["ds 0"].steals["plain"]


def test_warpgroups_in_step_lead_each_other_by_a_lag():
    """The first is through with the products, and with softmax, before the others; a single one leads nobody."""
    natten = kernels.load("natten_hopper", {"timing": {"lag_cycles": 100.0}})
    two = {o.name: o for o in built(natten, "h100", q_rows=128).ops}
    one = {o.name: o for o in built(natten, "h100", q_rows=64).ops}
    assert one["qk"].latency["plain"] - two["qk"].latency["plain"] == 100
    assert (one["exp"].latency["masked"], two["exp"].latency["masked"]) == (0, -100)
    assert two["max"].latency["masked"] == 0
    assert two["exp"].latency["skipped"] == 0, "there is nothing to lead by"
    assert two["max"].steals["masked"] == 0 < one["max"].steals["masked"]


def test_halves_of_a_head_are_one_head():
    program = built(kernels.load("trtllm_gen"), "b200", d=256, stages=1, template="tcgen05_halves")
    whole = built(kernels.load("trtllm_gen"), "b200", d=256, stages=1, template="tcgen05_single")
    for kind in ("plain", "masked"):
        assert program.unit_cycles(kind) == whole.unit_cycles(kind)
    assert sum(o.load_bytes["plain"] for o in program.ops) == sum(o.load_bytes["plain"] for o in whole.ops)
    assert [o.loads for o in program.ops if o.loads] == ["k", "k", "v", "v"]
    assert [o.name for o in program.ops if o.needs_q] == ["qka", "qkb"]


def test_the_output_of_a_wide_head_is_corrected_before_it_is_added_to():
    """The scores run ahead, so that nothing but a wait keeps the correction behind the product of the tile before."""
    ops = built(kernels.load("trtllm_gen"), "b200", d=256, stages=1, template="tcgen05_halves").ops
    number = {o.name: i for i, o in enumerate(ops)}
    corrected = ops[number["rescale"]]
    assert {(e.op, e.distance) for e in corrected.after} == {(number["max"], 0), (number["pvb"], 1)}
    assert corrected.role != ops[number["exp"]].role
    assert (number["rescale"], 0) in {(e.op, e.distance) for e in ops[number["pva"]].after}


def test_side_by_side_and_one_after_the_other():
    """`parallel`: as long as the busiest unit. `then`: what comes after the result counts for the role, not for who waits."""
    serial = form({"name": "w", "ops": [op("softmax", work=["max", "exp", "sum"])]})
    parallel = form({"name": "w", "ops": [op("softmax", work=["max", "exp", "sum"], parallel=True)]})
    later = form({"name": "w", "ops": [op("softmax", work=["max", "exp"], then=["sum"])]})
    s, p, t = (built(WITHOUT_POLYNOMIAL, "b200", template=f).ops[0] for f in (serial, parallel, later))
    assert (s.length["plain"], s.latency["plain"]) == (128 + 1024 + 128, 0)
    assert p.length["plain"] == 1024
    assert (t.length["plain"], t.latency["plain"]) == (128 + 1024 + 128, -128)
    assert s.units == p.units == t.units


# -- every kernel, every program -------------------------------------------------------------------------------------


def tiles(profile, spec, d):
    """Every tile that a kernel uses for a head width on a GPU."""
    for mask in profile.masks:
        if profile.serves(spec, mask, profile.dtypes[0], d, profile.phases[0]):
            yield from {profile.tile_for(spec, d, mask, axes, causal=causal) for axes in (1, 2, 3) for causal in (False, True)}


CASES = [(kernel, hw) for kernel in kernels.names() for hw in gpus.names() if gpus.load(hw).arch in kernels.load(kernel).archs]


@pytest.mark.parametrize(("name", "hw"), CASES)
def test_every_kernel_builds_on_each_of_its_gpus(name, hw):
    profile, spec = kernels.load(name), gpus.load(hw)
    seen = 0
    for d, d_v in [(576, 512)] if profile.latent else [(64, 64), (128, 128), (256, 256)]:
        for tile in tiles(profile, spec, d):
            rows, keys = prod(tile.q), prod(tile.kv)
            form = {"stages": tile.stages, "warps": tile.threads // 32, "template": tile.program or profile.program}
            program = built(profile, spec, rows, keys, d, d_v=d_v, **form)
            seen += 1
            for kind in KINDS:
                assert all(cycles >= 0 for cycles in program.unit_cycles(kind).values())
                assert all(o.length[kind] >= 0 <= o.length[kind] + o.latency[kind] for o in program.ops)
            assert program.unit_cycles("plain")["tensor"] >= 2 * rows * keys * (d + d_v) / spec.tensor.bf16_f32 * 0.999
    assert seen >= len(profile.masks)


MLA = {"d": 576, "d_v": 512, "q_rows": 64, "kv_rows": 64}


def runs():
    """Kernel, GPU and tile to run every program with: as a profile has them, for those that one names."""
    found = {
        "backward_mma_sync": ("fa2", "a100", {"q_rows": 128, "kv_rows": 64, "warps": 8}),
        "backward_wgmma": ("fa3", "h100", {"q_rows": 128, "kv_rows": 64}),
        "backward_tcgen05": ("fa4", "b200", {"q_rows": 128, "kv_rows": 128}),
        "mma_sync_cold": ("natten_ampere", "a100", {"q_rows": 64, "kv_rows": 128, "warps": 8}),
        "kv_major": ("triton", "h100", {"q_rows": 64, "kv_rows": 128}),
        "triton_tcgen05": ("triton", "b200", {"q_rows": 128, "kv_rows": 128}),
        "mla": ("flashmla", "h100", MLA),
        "tcgen05_single": ("fa4", "b200", {"q_rows": 128, "kv_rows": 128}),
        "triton_latent": ("triton_mla", "a100", {**MLA, "kv_rows": 32, "warps": 8}),
        "mla_tcgen05": ("flashmla_sparse_prefill_blackwell", "b200", {**MLA, "kv_rows": 128}),
        "wgmma_serial": ("fa3", "h100", {"q_rows": 192, "kv_rows": 160, "d": 64}),
        "mla_fp8": ("fa3", "h100", MLA),
        "mla_fp8_pair": ("fa3", "h100", MLA),
    }
    for d in (128, 256):
        for kernel, hw in CASES:
            for tile in tiles(kernels.load(kernel), gpus.load(hw), d):
                shape = {"q_rows": prod(tile.q), "kv_rows": prod(tile.kv), "stages": tile.stages, "warps": tile.threads // 32}
                found.setdefault(kernels.load(kernel).program_of(tile, d), (kernel, hw, shape | {"d": d}))
    return found


RUNS = runs()


def test_every_program_is_run():
    assert set(RUNS) == set(programs.names())


@pytest.mark.parametrize("name", RUNS)
def test_every_program_says_where_it_is_from(name):
    template = programs.load(name)
    assert template.name == name
    assert len(template.source) > 40


@pytest.fixture(scope="module")
def sm_of(one_sm):
    """A function of a program's name: one SM with it."""

    @cache
    def make(name, ctas=1):
        kernel, hw, shape = RUNS[name]
        return one_sm(kernels.load(kernel), hw, name, ctas=ctas, **shape)

    return make


@pytest.mark.parametrize("ctas", [1, 2])
@pytest.mark.parametrize("name", RUNS)
def test_no_program_beats_its_busiest_unit(sm_of, name, ctas):
    sm = sm_of(name, ctas)
    for kind in ("plain", "masked", "qk_only"):
        busiest = max(sm.program.unit_cycles(kind).values())
        assert busiest * 0.999 <= sm.visit(kind) <= 4 * busiest + 2000


@pytest.mark.parametrize("name", RUNS)
@settings(max_examples=25, deadline=None)
@given(kinds=st.lists(st.sampled_from(KINDS), max_size=24))
def test_every_program_ends_whatever_it_visits(sm_of, name, kinds):
    """Neither few visits nor any mixture of kinds makes a program wait for itself, and more visits never take less time."""
    sm = sm_of(name)
    busiest = max(sum(sm.program.unit_cycles(kind)[unit] for kind in kinds) for unit in UNITS)
    cycles = sm.cta(kinds)
    assert cycles >= busiest * 0.999
    assert sm.cta([*kinds, "plain"]) >= cycles


@pytest.mark.parametrize("name", RUNS)
def test_a_mask_costs_time_and_scores_alone_save_it(sm_of, name):
    sm = sm_of(name)
    assert sm.visit("masked") >= sm.visit("plain") > sm.visit("qk_only") > sm.visit("skipped")


# -- decode and programs whose CTAs own keys -------------------------------------------------------------------------


def test_few_rows_wait_for_their_loads(one_sm):
    """Decode: 16 rows on 64 keys take what the way into the SM takes for K and V, if there are buffers enough.

    In one warp: several that share the keys of so few rows all read these rows, which takes longer than K and V.
    """
    triton = kernels.load("triton")
    step = msgspec.structs.replace(triton, timing=msgspec.structs.replace(triton.timing, iteration_cycles={}))
    spec = gpus.load("a100")
    loads = 2 * 64 * 128 * 2 / spec.mem.l2.sm_bytes_per_clk
    deep, shallow = (
        one_sm(step, "a100", "triton_serial", q_rows=16, kv_rows=64, stages=stages, warps=1).visit() for stages in (4, 1)
    )
    assert deep == pytest.approx(loads, rel=0.02)
    assert shallow > 1.5 * loads


def test_by_keys_the_output_goes_out_with_every_visit():
    by_keys = built(kernels.load("triton"), "h100", q_rows=64, kv_rows=128, template="kv_major")
    by_queries = built(kernels.load("triton"), "h100", q_rows=128, kv_rows=64, template="triton_serial")
    assert by_keys.unit_cycles("plain")["tensor"] == by_queries.unit_cycles("plain")["tensor"]
    assert by_keys.unit_cycles("plain")["alu"] < by_queries.unit_cycles("plain")["alu"]
    moved = {o.name: o.load_bytes["plain"] for o in by_keys.ops if o.load_bytes["plain"]}
    assert moved == {"q": 128 * 128 * 2, "store": 128 * 128 * 2}


def test_fp8_keys_as_they_are_stored():
    """FlashMLA: 656 bytes a token: 512 of fp8, four fp32 scales, 64 of bf16."""
    shape = {"q_rows": 64, "kv_rows": 64, "d": 576, "d_v": 512}
    loads = {
        name: sum(o.load_bytes["plain"] for o in built(FA3, "h100", template=name, **shape).ops)
        for name in ("mla_fp8", "mla_fp8_pair")
    }
    assert loads == {"mla_fp8": 64 * 656, "mla_fp8_pair": 32 * 656}


def test_pruned_keys_move_the_bytes_that_are_kept():
    whole, half = (built(FA3, "h100", stored=share).load_bytes("plain") for share in (1.0, 0.5))
    assert half == whole / 2 == 128 * 128 * 2
