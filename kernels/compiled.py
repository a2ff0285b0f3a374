"""What a Triton kernel becomes on an architecture, found without a GPU: registers, occupancy, and what its loop costs each unit.

Triton is imported only where something is compiled.
"""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from math import ceil
from typing import Any

import msgspec
from msgspec import Struct

from ..facts import UserError, unknown_name
from ..hwspecs import GpuSpec, gpus
from .disassembly import Loop, disassemble, hot_loops, parse, resources
from .pipes import counts, cycles, tensor_flop, unit_of
from .source import Build, Config, Source, bundled, load_triton, of_file

ARCHS = {
    "sm80": "a100_sxm_80gb",
    "sm86": "rtx_3090",
    "sm89": "rtx_4090",
    "sm90": "h100_sxm",
    "sm100": "b200_sxm",
    "sm103": "b300_sxm",
    "sm120": "rtx_5090",
}
"""Architectures that code can be compiled for, and the GPU whose rates stand for each where no other is named."""

SERIAL = ("tensor", "ex2", "fma", "alu")
"""Units whose cycles add up where the warps of a CTA run in step."""


class Iteration(Struct, frozen=True, kw_only=True):
    """One loop over keys.

    Attributes
    ----------
    role : str
        `all`, or what its warps do: softmax, mma, load, rescale.
    warps : int
        Warps of a CTA that run it.
    instructions : dict
        Warp instructions of a CTA for one tile of keys, by opcode; `(never)` are those with a false predicate.
    """

    role: str
    warps: int
    instructions: dict[str, float]


class Compiled(Struct, frozen=True, kw_only=True):
    """A compiled kernel, read.

    Attributes
    ----------
    arch, gpu : str
        Architecture, and the GPU whose rates turn instructions into cycles.
    config : Config
        Tile and launch.
    registers, spills : int
        Registers of a thread, and bytes of its stack, which only hold what did not fit into them.
    shared_bytes, tmem_columns, threads : int
        Shared memory, tensor memory and threads of a CTA.
    ctas_per_sm : int
        CTAs that fit on an SM together; 0 where not even one does.
    loop, cycles : dict
        Warp instructions of a CTA for a tile of keys without a mask, and cycles of an SM that they take, by unit.
    serial_cycles : float
        Tensor, exponential, FMA and ALU cycles one after the other: what a tile takes where the warps of a CTA run in step. Where
        warps have roles, which work side by side, a tile takes less.
    tensor_check : float
        Tensor cycles counted over those that the tile must take, 4 x block_m x block_n x head_dim over the rate: 1.
    loops : tuple of Iteration
        All loops over keys: that of full tiles, then that of masked ones; or one a role.
    triton, sass : str
        Version of Triton, and a hash of the instructions, which is the same wherever that version compiles the same source.
    """

    kernel: str
    arch: str
    gpu: str
    config: Config
    registers: int
    spills: int
    shared_bytes: int
    tmem_columns: int
    threads: int
    ctas_per_sm: int
    loop: dict[str, float]
    cycles: dict[str, float]
    serial_cycles: float
    tensor_check: float
    loops: tuple[Iteration, ...]
    triton: str
    sass: str

    @property
    def specialised(self) -> bool:
        """Its warps have roles."""
        return self.loops[0].role != "all"


def architecture(name: str) -> tuple[str, str]:
    """Architecture and GPU behind `sm_90`, `sm90`, `90` or the name of a GPU.

    Raises
    ------
    UserError
        It is neither, or nothing can be compiled for it.

    Examples
    --------
    >>> architecture("sm_90"), architecture("h200")
    (('sm90', 'h100_sxm'), ('sm90', 'h200_sxm'))
    """
    known = [f"sm_{arch[2:]}" for arch in ARCHS]
    plain = name.lower().removeprefix("sm").removeprefix("_").rstrip("af")
    if plain.isdigit():
        arch = f"sm{plain}"
        if arch not in ARCHS:
            raise UserError(f"no architecture {name!r} to compile for; known: {', '.join(known)}")
        return arch, ARCHS[arch]
    try:
        spec = gpus.load(name)
    except UserError:
        raise unknown_name("architecture or GPU", name, [*known, *gpus.names(), *gpus.aliases()]) from None
    if spec.arch not in ARCHS:
        raise UserError(
            f"nothing can be compiled for {spec.name} ({spec.arch}); known: {', '.join(f'sm_{a[2:]}' for a in ARCHS)}"
        )
    return spec.arch, name if name.endswith(".toml") else spec.name


def compile_kernel(build: Build, arch: str) -> Compiled:
    """Compile a kernel for an architecture and read the result.

    Takes some seconds the first time; Triton keeps what it compiled in the folder of TRITON_CACHE_DIR, or the user's cache.

    Parameters
    ----------
    arch : str
        `sm_90`, or the name of a GPU, whose rates are then used.

    Raises
    ------
    UserError
        The source does not compile, something about it is not known, or its code has no loop over keys.
    """
    found, gpu = architecture(arch)
    if "TRITON_INTERPRET" in os.environ:
        return _elsewhere(build, gpu)
    source = of_file(build) if build.file else bundled(build, found)
    if "Interpreted" in type(source.fn).__name__:  # Its module was imported while the interpreter was on.
        return _elsewhere(build, gpu)
    asm, metadata, version = _compile(source, int(found[2:]))
    return _read_compiled(source, asm, metadata, version, found, gpu)


def _elsewhere(build: Build, gpu: str) -> Compiled:
    """Compile in a process without the interpreter, which replaces the compiler wherever TRITON_INTERPRET is set."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    command = [sys.executable, "-P", "-c", "from simattn.kernels.compiled import _answer; _answer()"]
    request = msgspec.json.encode([build, gpu])
    done = subprocess.run(command, input=request, capture_output=True, env=environment, check=False)
    if done.returncode:
        raise UserError(f"compiling {build.kernel} failed: {_last_line(done.stderr.decode(errors='replace'))}")
    answer = msgspec.json.decode(done.stdout)
    if "error" in answer:
        raise UserError(answer["error"])
    return msgspec.convert(answer["compiled"], Compiled)


def _answer() -> None:
    """The other end of `_elsewhere`: a request on stdin, the answer on stdout."""
    build, gpu = msgspec.json.decode(sys.stdin.buffer.read(), type=tuple[Build, str])
    try:
        answer: dict[str, Any] = {"compiled": compile_kernel(build, gpu)}
    except UserError as error:
        answer = {"error": str(error)}
    sys.stdout.buffer.write(msgspec.json.encode(answer))


def _last_line(text: str) -> str:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no reason given"


def _compile(source: Source, capability: int) -> tuple[dict[str, Any], Any, str]:
    """Run Triton's compiler, and keep what its passes print away from the user."""
    triton, ast_source, target = load_triton()
    with _silent() as noise:
        try:
            kernel = triton.compile(
                ast_source(fn=source.fn, signature=source.signature, constexprs=source.constexprs, attrs=source.attrs),
                target=target("cuda", capability, 32),
                # Triton 3.10 turns fusion off by default; without it a quarter more instructions run on the FMA pipe.
                options={"enable_fp_fusion": True, **source.options},
            )
        except Exception as error:  # A compiler of a foreign language over foreign source: every kind of error occurs.
            noise.seek(0)
            lines = noise.read().decode(errors="replace").splitlines()
            said = next((line.partition("error:")[2].strip() for line in lines if "error:" in line), "")
            reason = said or " ".join(str(error).split())[-300:]
            raise UserError(
                f"Triton {triton.__version__} cannot compile {source.name} for sm_{capability}: {reason[:300]}"
            ) from None
    return kernel.asm, kernel.metadata, str(triton.__version__)


@contextmanager
def _silent() -> Iterator[Any]:
    """Send file descriptor 2 to a file: the compiler's passes write to it from C++."""
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as noise:
        try:
            os.dup2(noise.fileno(), 2)
            yield noise
        finally:
            os.dup2(kept, 2)
            os.close(kept)


def _read_compiled(source: Source, asm: Mapping[str, Any], metadata: Any, version: str, arch: str, gpu: str) -> Compiled:
    """What the code and the compiler's notes say."""
    spec = gpus.load(gpu)
    cubin, config = asm["cubin"], source.config
    instructions = parse(disassemble(cubin), metadata.name)
    used = resources(cubin, metadata.name)
    loops = hot_loops(instructions)
    warps = int(metadata.num_warps)
    own = _role_warps(asm.get("ttgir", ""))
    shared = int(metadata.shared)
    columns = int(getattr(metadata, "tmem_size", 0) or 0)
    per_loop = [own.get(loop.partition, config.warps) for loop in loops]
    read = _read_loops(loops, per_loop, spec, config, source.name)
    sass = "\n".join(f"{i.guard} {i.opcode} {i.operands}" for i in instructions)
    return Compiled(
        kernel=source.name,
        arch=arch,
        gpu=gpu,
        config=config,
        registers=used.registers,
        spills=used.stack,
        shared_bytes=shared,
        tmem_columns=columns,
        threads=warps * 32,
        ctas_per_sm=occupancy(spec, used.registers, warps, shared, columns),
        triton=version,
        sass=hashlib.sha256(sass.encode()).hexdigest()[:12],
        **read,
    )


def _role_warps(ttgir: str) -> dict[int | None, int]:
    """Warps of each partition of a warp-specialised kernel, by number; None for those that it starts with."""
    found: dict[int | None, int] = {int(n): int(w) for n, w in re.findall(r"partition(\d+)\(.*num_warps\((\d+)\)", ttgir)}
    own = re.search(r'"ttg.num-warps" = (\d+)', ttgir)
    return {**found, None: int(own.group(1))} if own else found


def _read_loops(loops: tuple[Loop, ...], warps: list[int], spec: GpuSpec, config: Config, name: str) -> dict[str, Any]:
    """Instructions and cycles of one tile of keys, held against the tensor work that the tile must have."""
    totals = [loop.total(number) for loop, number in zip(loops, warps, strict=True)]
    # A tcgen05 product of 64 rows takes as long as one of 128.
    single = any(op.startswith("UTC") for total in totals for op in total)
    work = 4.0 * (max(config.block_m, 128) if single else config.block_m) * config.block_n * config.head_dim
    specialised = loops[0].role != "all"
    parts = [flop_of(total) for total in totals]
    if specialised:  # Of all roles only one has tensor work, and an iteration of each is one of that one.
        parts = [sum(parts)] * len(parts)
    # Loops over something else, such as the keys that are left over, have another share of the tile's work.
    tiles = [round(part / work) for part in parts]
    whole = [number >= 1 and abs(part / (number * work) - 1) <= _TOLERANCE for number, part in zip(tiles, parts, strict=True)]
    if not any(whole):
        raise UserError(
            f"{name}: an iteration of its loop has {parts[0] / work:.3g} times the tensor work of a tile of {config.block_m} "
            f"queries by {config.block_n} keys of {config.head_dim}; name the tile with --block-m, --block-n and --head-dim"
        )
    read = [
        Iteration(
            role=loop.role,
            warps=number,
            instructions={op: n / count for op, n in sorted(total.items())},
        )
        for loop, number, total, count, fits in zip(loops, warps, totals, tiles, whole, strict=True)
        if fits
    ]
    if specialised:
        plain = totals_of([r.instructions for r in read])
    else:
        # Masks are extra work: the loop of full tiles is the cheapest one.
        read.sort(key=lambda r: serial(cycles(r.instructions, spec)))
        plain = read[0].instructions
    taken = cycles(plain, spec)
    return {
        "loop": counts(plain),
        "cycles": taken,
        "serial_cycles": serial(taken),
        "tensor_check": round(flop_of(plain) / work, 4),
        "loops": tuple(read),
    }


_TOLERANCE = 0.01
"""Relative difference from a whole number of tiles that is still taken for it."""


def serial(taken: Mapping[str, float]) -> float:
    """Cycles of a tile where tensor cores, exponentials, FMA and ALU take turns.

    >>> serial({"tensor": 1024.0, "ex2": 512.0, "fma": 300.0, "smem": 4000.0})
    1836.0
    """
    return float(sum(taken.get(unit, 0.0) for unit in SERIAL))


def flop_of(instructions: Mapping[str, float]) -> float:
    """FLOP of the tensor instructions among those of a CTA."""
    return float(sum(n * tensor_flop(op)[0] for op, n in instructions.items() if unit_of(op) == "tensor"))


def totals_of(parts: Sequence[Mapping[str, float]]) -> dict[str, float]:
    """Sum of several counts."""
    total: dict[str, float] = {}
    for part in parts:
        for name, number in part.items():
            total[name] = total.get(name, 0) + number
    return total


def occupancy(spec: GpuSpec, registers: int, warps: int, shared_bytes: int, tmem_columns: int = 0) -> int:
    """CTAs that fit on an SM together, by registers, threads, shared memory and tensor memory; 0 where none does.

    Parameters
    ----------
    registers : int
        Of a thread; a warp gets them in steps of 256.
    shared_bytes : int
        That the CTA asks for, without what the system takes.
    tmem_columns : int
        Columns of 128 words of tensor memory.

    Examples
    --------
    >>> occupancy(gpus.load("a100"), 128, 4, 40 * 1024), occupancy(gpus.load("h100"), 168, 8, 0)
    (4, 1)
    """
    sm = spec.sm
    if shared_bytes > sm.smem_cta_max_kib * 1024:
        return 0
    of_warp = ceil(registers * 32 / 256) * 256
    limits = [
        sm.smem_kib * 1024 / (shared_bytes + sm.smem_reserved_kib * 1024)
        if shared_bytes or sm.smem_reserved_kib
        else sm.max_ctas,
        sm.regs / (of_warp * warps),
        sm.max_threads / (32 * warps),
        sm.max_ctas,
    ]
    if tmem_columns:
        limits.append(sm.tmem_kib * 1024 / (128 * 4) / tmem_columns)
    return int(min(limits))
