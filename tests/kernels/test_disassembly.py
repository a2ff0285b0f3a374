"""Control flow and counts of code, on texts written by hand for each of its traps."""

from pathlib import Path

import pytest
from simattn.hwspecs import gpus
from simattn.kernels.disassembly import control_flow, hot_loops, natural_loops, parse, parse_resources
from simattn.kernels.pipes import counts, cycles, cycles_of, pipes, tensor_flop, unit_of

from simattn import UserError

DATA = Path(__file__).parent / "data"


def code(name, function="attend"):
    return parse((DATA / f"{name}.sass").read_text(), function)


def test_instructions_of_one_function():
    found = code("in_step")
    assert (found[0].opcode, found[-1].opcode, len(found)) == ("MOV", "BRA", 23)
    jump = found[2]
    assert (jump.guard, jump.base, jump.targets, jump.address) == ("!P0", "BRA", (".L_x_0",), 0x20)
    assert found[4].never
    assert len(code("in_step", None)) == 2


def test_loops_end_where_a_call_leaves_them():
    flow = control_flow(code("in_step"))
    loops = natural_loops(flow)
    at = {head: flow.blocks[head][0].labels for head in loops}
    assert sorted(at.values()) == [(".L_x_1",), (".L_x_2",), (".L_x_3",)]
    outer, spin, _ = sorted(loops.values(), key=min)
    assert spin < outer
    # What nobody can get to, the trap behind the end, is no loop.
    assert all(".L_x_5" not in label for label in at.values())


def test_counts_of_the_loops_over_keys():
    full, masked = hot_loops(code("in_step"))
    assert (full.role, full.first, full.last) == ("all", 0x30, 0xC0)
    assert full.every["HMMA.16816.F32.BF16"] == masked.every["HMMA.16816.F32.BF16"] == 2
    assert (full.every["FSEL"], masked.every["FSEL"]) == (0, 1)
    # A load under a predicate that is never true takes a turn to issue, and no shared memory.
    assert (full.every["(never)"], full.every["LDS"]) == (1, 0)
    assert full.total(8)["MUFU.EX2"] == 8


def test_what_one_thread_issues_counts_once():
    (loop,) = hot_loops(code("elected"))
    # The wait for a barrier that is there already, and all that stands in the block of the product.
    assert loop.one == {"UIADD3": 1, "UTCHMMA.128x64x16": 1, "SYNCS.PHASECHK.TRANS64.TRYWAIT": 1, "BRA": 1}
    assert loop.every["MUFU.EX2"] == 1
    assert loop.total(4)["UTCHMMA.128x64x16"] == 1


def test_roles():
    loops = {loop.role: loop for loop in hot_loops(code("roles"))}
    assert set(loops) == {"softmax", "mma", "load", "rescale"}
    assert [loops[role].partition for role in ("softmax", "mma", "load", "rescale")] == [None, 0, 1, 2]
    assert loops["mma"].one == {"UTCHMMA.128x128x16": 2}
    assert loops["load"].one == {"UTMALDG.2D": 1}


def test_code_without_such_a_loop():
    with pytest.raises(UserError, match="no loop over keys"):
        hot_loops(code("in_step", "other"))
    with pytest.raises(UserError, match="no instructions"):
        hot_loops(parse("nothing of the kind"))


def test_resources():
    text = "Function attend:\n  REG:255 STACK:56 SHARED:1024 LOCAL:0 CONSTANT[0]:424"
    assert parse_resources(text, "attend") == (255, 56, 1024)
    with pytest.raises(UserError, match="no function attends"):
        parse_resources(text, "attends")


def test_every_instruction_is_on_one_pipe_and_every_rate_is_known():
    b200 = gpus.load("b200")
    for op, pipe in pipes().items():
        assert pipe.unit in {"fma", "alu", "ex2", "smem", "tmem", "tensor", "tma", "global", "sync"}
        assert unit_of(op) == pipe.unit
        if pipe.unit in ("fma", "alu", "ex2", "smem", "tmem"):
            assert cycles_of(op, b200) > 0
    assert unit_of("UIADD3.X") == "uniform"
    assert unit_of("UTMALDG.2D") == "tma"


@pytest.mark.parametrize(
    ("opcode", "gpu", "wanted"),
    [
        # Cycles of an SM, from the rates in the programming guide and in papers that measured them.
        ("HMMA.16816.F32.BF16", "a100", 2.0),
        ("HMMA.16816.F32.BF16", "rtx_4090", 8.0),
        ("HMMA.16816.F32.BF16", "l40s", 4.0),
        ("HGMMA.64x128x16.F32.BF16", "h100", 16.0),
        ("UTCHMMA.128x128x16", "b200", 64.0),
        ("UTCHMMA.64x128x16", "b200", 64.0),
        ("FFMA", "a100", 0.5),
        ("FFMA", "h100", 0.25),
        ("FADD2", "b200", 0.5),
        ("IMAD.WIDE", "a100", 0.5),
        ("IMAD.WIDE", "h100", 0.5),
        ("MUFU.EX2", "h100", 2.0),
        ("MUFU.EX2", "b300", 1.0),
        ("MUFU.RCP", "b300", 2.0),
        ("LDSM.16.M88.4", "a100", 4.0),
        ("LDSM.16.MT88.2", "a100", 2.0),
        ("LDGSTS.E.BYPASS.128", "a100", 4.0),
        ("SHFL.BFLY", "a100", 1.0),
        ("LDTM.x64", "b200", 8192 / 200),
        ("LDTM.16dp32bit_t0_t15.x64", "b200", 4096 / 200),
        ("NOP", "h100", 0.0),
        ("BAR.SYNC.DEFER_BLOCKING", "h100", 0.0),
    ],
)
def test_cycles_of_an_instruction(opcode, gpu, wanted):
    assert cycles_of(opcode, gpus.load(gpu)) == pytest.approx(wanted)


def test_old_tensor_instructions_on_new_gpus():
    h100 = gpus.load("h100")
    assert cycles_of("HMMA.16816.F32.BF16", h100) == pytest.approx(1 / h100.mma.legacy_fraction)


def test_tensor_instructions_by_type():
    assert tensor_flop("HGMMA.64x128x32.F32.E4M3.E4M3")[1] == tensor_flop("QGMMA.64x128x32.F32.E4M3.E4M3")[1] == "fp8"
    assert tensor_flop("HMMA.1688.F32.TF32") == (2048.0, "tf32")
    with pytest.raises(UserError, match="shape of UTCHMMA"):
        tensor_flop("UTCHMMA")


def test_counts_and_cycles_by_unit():
    mix = {"HMMA.16816.F32.BF16": 1024, "MUFU.EX2": 272, "FFMA": 272, "UIADD3": 8, "NOP": 3}
    assert counts(mix) == {"ex2": 272, "fma": 272, "other": 3, "tensor": 1024, "uniform": 8}
    assert cycles(mix, gpus.load("a100")) == {"ex2": 544.0, "fma": 136.0, "issue": 394.75, "tensor": 2048.0}
