"""One SM with a loop program on it, for tests of programs."""

import numpy as np
import pytest
from simattn.hwspecs import gpus
from simattn.kernels import KINDS, build, programs
from simattn.simulator.machine import TICKS, Work, encode, run
from simattn.simulator.pipeline import sm_pipeline
from simattn.workloads import AttentionProblem


class OneSm:
    """A kernel's pipeline, with any program in place of its own."""

    def __init__(self, profile, spec, program, *, ctas=1, **shape):
        problem = AttentionProblem(q_heads=1, seq_q=8192, head_dim=64)
        pipeline = sm_pipeline(spec, profile, profile.tile_for(spec, 64, profile.masks[0]), problem, 64, 64)
        self.program = program
        self.pipeline = pipeline._replace(program=program, code=encode(program), ctas=ctas, **shape)

    def visit(self, kind="plain"):
        """Cycles from one visit to the next, once it is steady."""
        return self.pipeline.steady().together[KINDS.index(kind)]

    def cta(self, kinds):
        """Cycles of a CTA with such visits."""
        visits = len(kinds)
        work = Work(
            row_first=np.array([0, visits]),
            tile=np.arange(visits, dtype=np.int32),
            kind=np.array([KINDS.index(kind) for kind in kinds], np.int8),
            row_bytes=np.array([round(self.pipeline.row_bytes * self.pipeline.q_rows)]),
            row_keys=np.array([visits]),
            width=1,
            cta_row=np.zeros(1, np.int64),
            cta_keys=np.zeros(1, np.int64),
        )
        memory = self.pipeline.memory(l2_bytes_per_clk=0, dram_bytes_per_clk=0, clock_hz=1e9, capacity_bytes=1e12, streams=False)
        tiles = 2 * max(visits, 1)
        return run(self.pipeline.code, work, memory, sms=1, slots=1, prologue=1000, tiles=tiles, warm=tiles).end / TICKS


@pytest.fixture(scope="session")
def one_sm():
    """A function of profile, GPU, program (a name, a template or a built one) and the shape of the tile."""

    def make(profile, hw, template, *, q_rows, kv_rows, d=128, d_v=None, stages=2, warps=12, mask_alu=2.0, ctas=1):
        spec = gpus.load(hw) if isinstance(hw, str) else hw
        rate = spec.tensor_flops_per_clk("bf16") * (spec.mma.legacy_fraction if profile.tensor_path == "mma_sync" else 1.0)
        program = build(
            profile,
            spec,
            q_rows=q_rows,
            kv_rows=kv_rows,
            head_dim=d,
            head_dim_v=d if d_v is None else d_v,
            element_bytes=2,
            stages=stages,
            warps=warps,
            tensor_rate=rate,
            mask_alu=mask_alu,
            template=programs.load(template) if isinstance(template, str) else template,
        )
        return OneSm(profile, spec, program, ctas=ctas, q_rows=q_rows, kv_rows=kv_rows)

    return make
