"""The profile of a kernel that nobody has measured, from what its compiled loop costs.

A plain Triton loop is serial: of the two published runs whose exact source and tile are known, the sum of tensor, exponential,
FMA and ALU cycles is 0 % (A100) and 4 % (H100) below the measured time of a tile.
"""

from __future__ import annotations

import msgspec

from ..facts import Provenance, UserError
from ..hwspecs import GpuSpec, gpus
from .compiled import Compiled, Iteration
from .pipes import cycles_of, unit_of
from .profile import KernelProfile, Launch, Mask, MaskClass, Softmax, Tile, Timing, kernels

MASKS: tuple[MaskClass, ...] = ("dense", "window", "varlen", "blocks", "element", "box")
"""What a kernel that is only known by its code is taken to run: whatever it is asked to."""


def profile_of(compiled: Compiled, *, name: str | None = None, masks: tuple[MaskClass, ...] = MASKS) -> KernelProfile:
    """A profile that costs a tile what the compiled loop costs.

    The operations of a score follow from the counted instructions; the mask is what the loop of masked tiles does beyond that of
    full ones. What code does not show, such as the order of CTAs and the cost of their start, is that of the profile `triton`.

    Parameters
    ----------
    name : str, optional
        Of the profile; the kernel's by default.
    masks : tuple of str
        Mask classes that it can run.

    Raises
    ------
    UserError
        Not one CTA fits on an SM, or the code has roles for which there is no loop program.
    """
    if not compiled.ctas_per_sm:
        raise UserError(
            f"{compiled.kernel} does not fit on {compiled.gpu}: a CTA has {compiled.shared_bytes:,} bytes of shared memory, "
            f"{compiled.registers} registers for each of {compiled.threads} threads and {compiled.tmem_columns} columns of TMEM"
        )
    spec, config, like = gpus.load(compiled.gpu), compiled.config, kernels.load("triton")
    in_tmem = spec.mma.family == "tcgen05" and _uses(compiled, ("UTC",))
    program = _program(compiled, spec, in_tmem=in_tmem)
    title = name or compiled.kernel
    if config.dtype not in ("bf16", "fp16", "fp8"):
        raise UserError(f"{title} works on {config.dtype}; predicted can be bf16, fp16 and fp8")
    softmax = _softmax(compiled, spec)
    found = _mask(compiled, spec)
    read = f"compiled for {compiled.arch} with Triton {compiled.triton} and read: instructions {compiled.sass}"
    profile = KernelProfile(
        name=title,
        title=f"{compiled.kernel}, read from its compiled code",
        archs=(compiled.arch,),
        masks=masks,
        preference=100,
        dtypes=("bf16", "fp16") if config.dtype in ("bf16", "fp16") else ("fp8",),
        tensor_path="mma_sync" if _uses(compiled, ("HMMA", "QMMA")) and spec.mma.family != "mma_sync" else "native",
        tiles=(),
        program=program,
        timing=Timing(
            prologue_cycles=like.timing.prologue_cycles,
            contention=like.timing.contention,
        ),
        softmax=softmax,
        mask=found or Mask(policy="partial", alu=like.mask.alu),
        launch=Launch(order=like.launch.order),
        skip="range",
        meta={
            "tiles": Provenance(kind="code", source=read),
            "program": Provenance(
                kind="code", source=f"{read}; {'a loop for each role' if compiled.specialised else 'one loop'}"
            ),
            "softmax": Provenance(kind="derived", source=read, note="counted instructions over scores"),
            "mask": Provenance(kind="derived", source=read, note="second loop less the first")
            if found
            else Provenance(kind="recalled", source="the profile triton: this code has no second loop to compare"),
            "timing": Provenance(kind="recalled", source="prologue_cycles of the profile triton; no further cycles for barriers"),
            "launch": Provenance(kind="recalled", source="the profile triton"),
            "skip": Provenance(kind="recalled", source="the profile triton"),
        },
    )
    return _with_tile(profile, compiled, spec)


def _with_tile(profile: KernelProfile, compiled: Compiled, spec: GpuSpec) -> KernelProfile:
    """The profile with its one tile, in as many buffers as leave room for the CTAs that really fit."""
    config = compiled.config
    for stages in range(config.stages, 0, -1):
        tile = Tile(
            q=(config.block_m,),
            kv=(config.block_n,),
            head_dim=config.head_dim,
            threads=compiled.threads,
            regs=min(255, max(16, compiled.registers)),
            stages=min(8, stages),
        )
        needed = profile.smem_kib(tile, config.head_dim, config.head_dim, 1 if config.dtype == "fp8" else 2)
        if (needed + spec.sm.smem_reserved_kib) * compiled.ctas_per_sm <= spec.sm.smem_kib and needed <= spec.sm.smem_cta_max_kib:
            break
    return msgspec.structs.replace(profile, tiles=(tile,))


def _program(compiled: Compiled, spec: GpuSpec, *, in_tmem: bool) -> str:
    """The loop program whose form the code has."""
    if not compiled.specialised:
        return "triton_tcgen05" if in_tmem else "triton_serial"
    if in_tmem and {"softmax", "mma", "load"} <= {loop.role for loop in compiled.loops}:
        # Warps that rescale the output have no role of their own there: their work counts as the softmax warps'.
        return "tcgen05_single"
    roles = ", ".join(loop.role for loop in compiled.loops)
    raise UserError(f"{compiled.kernel} has warps with roles ({roles}) that no loop program for {spec.arch} has")


def _uses(compiled: Compiled, beginnings: tuple[str, ...]) -> bool:
    return any(op.startswith(beginnings) for loop in compiled.loops for op in loop.instructions)


def _plain(compiled: Compiled) -> dict[str, float]:
    """Instructions of a tile without a mask, of all roles."""
    loops = compiled.loops if compiled.specialised else compiled.loops[:1]
    total: dict[str, float] = {}
    for loop in loops:
        for op, number in loop.instructions.items():
            total[op] = total.get(op, 0.0) + number
    return total


def _taken(instructions: dict[str, float], spec: GpuSpec, *beginnings: str) -> float:
    """Cycles of instructions whose names begin so."""
    return sum(number * cycles_of(op, spec) for op, number in instructions.items() if op.startswith(beginnings))


def _unit(instructions: dict[str, float], spec: GpuSpec, unit: str) -> float:
    return sum(number * cycles_of(op, spec) for op, number in instructions.items() if unit_of(op) == unit)


def _softmax(compiled: Compiled, spec: GpuSpec) -> Softmax:
    """Operations of a score that make the loop program charge what was counted."""
    instructions, config, units = _plain(compiled), compiled.config, spec.units
    scores = config.block_m * config.block_n
    maxima = _taken(instructions, spec, "FMNMX")
    sums = _taken(instructions, spec, "FADD")
    output = config.block_m * config.head_dim / units.fma_lanes
    rescale = min(1.0, _taken(instructions, spec, "FMUL") / output)
    scale = _unit(instructions, spec, "fma") - sums - rescale * output
    return Softmax(
        max=maxima * (units.max_lanes or units.alu_lanes) / scores,
        scale=max(0.0, scale) * units.fma_lanes / scores,
        sum=sums * units.fma_lanes / scores,
        # Whatever else runs on the ALU pipe, addresses included.
        convert=(_unit(instructions, spec, "alu") - maxima) * units.alu_lanes / scores,
        rescale=rescale,
        exp=_unit(instructions, spec, "ex2") * units.ex2 / scores,
    )


def _mask(compiled: Compiled, spec: GpuSpec) -> Mask | None:
    """What masking a tile costs, where the code shows it."""
    config, loops = compiled.config, compiled.loops
    scores = config.block_m * config.block_n
    if not compiled.specialised and len(loops) > 1:
        extra = _work(loops[-1], spec) - _work(loops[0], spec)
        return Mask(policy="partial", alu=(min(64.0, max(0.0, extra) * spec.units.alu_lanes / scores),))
    selects = sum(n for op, n in _plain(compiled).items() if op.startswith(("FSEL", "SEL"))) * 32
    # One loop that selects for every score masks every tile, and its cost is counted with the others.
    return Mask(policy="all", alu=(0.0,)) if selects >= scores / 2 else None


def _work(loop: Iteration, spec: GpuSpec) -> float:
    return _unit(loop.instructions, spec, "alu") + _unit(loop.instructions, spec, "fma")
