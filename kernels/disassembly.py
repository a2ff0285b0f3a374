"""Compiled GPU code: instructions of a cubin, its control flow, and the loop over the keys in it.

NVIDIA's tools come with Triton's wheel. Nothing here needs a GPU; networkx is imported where it is used.
"""

from __future__ import annotations

import re
import subprocess
import tempfile
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from ..facts import UserError


class Instruction(NamedTuple):
    """One instruction as nvdisasm prints it.

    Attributes
    ----------
    address : int
        Bytes from the start of the function.
    guard : str
        Predicate without the @; empty where it always runs.
    opcode : str
        Name with all its modifiers.
    operands : str
        What follows the name.
    labels : tuple of str
        Labels in front of it.
    targets : tuple of str
        Labels that it may jump to.
    """

    address: int
    guard: str
    opcode: str
    operands: str
    labels: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()

    @property
    def base(self) -> str:
        """Name without modifiers."""
        return self.opcode.partition(".")[0]

    @property
    def never(self) -> bool:
        """Its predicate is false by definition: it takes a turn to issue, and does nothing."""
        return self.guard in ("!PT", "!UPT")


@dataclass(frozen=True)
class Loop:
    """Instructions of one iteration of a loop.

    Attributes
    ----------
    role : str
        `all` where one loop has tensor products and exponentials, else what its warps do: softmax, mma, load, rescale.
    first, last : int
        Addresses of its lowest and highest instruction, in bytes.
    every : Counter
        Opcodes that each warp runs.
    one : Counter
        Opcodes that one warp of the CTA runs for all: those that a single thread issues, and what stands in blocks with them.
    partition : int or None
        Number of the branch of a warp-specialised kernel that it is in; None for the warps that the kernel starts with.
    """

    role: str
    first: int
    last: int
    every: Counter[str] = field(default_factory=Counter)
    one: Counter[str] = field(default_factory=Counter)
    partition: int | None = None

    def total(self, warps: int) -> Counter[str]:
        """Warp instructions of a CTA, by opcode, where so many warps run the loop."""
        total = Counter({opcode: number * warps for opcode, number in self.every.items()})
        total.update(self.one)
        return total


class Resources(NamedTuple):
    """What a CTA asks for: registers of a thread, bytes of stack of a thread, bytes of static shared memory."""

    registers: int
    stack: int
    shared: int


_TOOLS_SECONDS = 120


def _run_tool(name: str, arguments: Sequence[str], cubin: bytes) -> str:
    """Output of one of NVIDIA's tools on a cubin."""
    try:
        import triton.backends.nvidia
    except ImportError:
        raise UserError("compiled code is read with the tools of Triton: pip install 'simattn[kernels]'") from None
    tool = Path(next(iter(triton.backends.nvidia.__path__))) / "bin" / name
    if not tool.is_file():
        raise UserError(f"this build of Triton {triton.__version__} comes without {name}")
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        done = subprocess.run(
            [str(tool), *arguments, file.name], capture_output=True, text=True, check=False, timeout=_TOOLS_SECONDS
        )
    if done.returncode:
        raise UserError(f"{name} cannot read this cubin: {' '.join((done.stderr or done.stdout).split())[:200]}")
    return done.stdout


def disassemble(cubin: bytes) -> str:
    """What `nvdisasm -c` prints for a cubin."""
    return _run_tool("nvdisasm", ["-c"], cubin)


def resources(cubin: bytes, function: str) -> Resources:
    """Registers, stack and static shared memory of a function of a cubin."""
    return parse_resources(_run_tool("cuobjdump", ["-res-usage"], cubin), function)


def parse_resources(text: str, function: str) -> Resources:
    """The same from the text of `cuobjdump -res-usage`.

    >>> parse_resources("Function f:\\n  REG:201 STACK:16 SHARED:1024 LOCAL:0 CONSTANT[0]:424", "f")
    Resources(registers=201, stack=16, shared=1024)
    """
    found = re.search(rf"Function {re.escape(function)}:\s*\n(.*)", text)
    if not found:
        raise UserError(f"the cubin has no function {function}")
    numbers = {name: int(number) for name, number in re.findall(r"(\w+):(\d+)", found.group(1))}
    return Resources(numbers["REG"], numbers["STACK"] + numbers["LOCAL"], numbers["SHARED"])


_LABEL = re.compile(r"^\s*([.$\w]+):\s*$")
_LINE = re.compile(r"^\s*/\*(?P<address>[0-9a-f]{4,})\*/\s+(?:@(?P<guard>!?\w+)\s+)?(?P<opcode>[A-Z][\w.]*)\s*(?P<rest>.*)$")
_TARGET = re.compile(r"`\(([^)]+)\)")


def parse(text: str, function: str | None = None) -> list[Instruction]:
    """The instructions of a function, in address order.

    Parameters
    ----------
    text : str
        Output of `nvdisasm -c`.
    function : str, optional
        Its name; the first one by default.

    Examples
    --------
    >>> parse("        /*0010*/              @!P0 BRA `(.L_x_0) ;")[0]
    Instruction(address=16, guard='!P0', opcode='BRA', operands='`(.L_x_0)', labels=(), targets=('.L_x_0',))
    """
    found: list[Instruction] = []
    labels: list[str] = []
    inside = function is None
    for line in text.splitlines():
        section = re.match(r"\s*\.section\s+\.text\.([^,\s]+)", line)
        if section:
            if found:
                break
            inside = function is None or section.group(1) == function
        elif inside and (label := _LABEL.match(line)):
            labels.append(label.group(1))
        elif inside and (match := _LINE.match(line)):
            rest, _, comment = match["rest"].partition("(*")
            operands = rest.strip().removesuffix(";").strip()
            targets = tuple(_TARGET.findall(operands))
            if "BRANCH_TARGETS" in comment:
                targets = tuple(re.findall(r"\.L[\w.]+", comment))
            found.append(
                Instruction(int(match["address"], 16), match["guard"] or "", match["opcode"], operands, tuple(labels), targets)
            )
            labels = []
    return found


_JUMPS = ("BRA", "BRX", "JMP", "JMX", "CALL", "BREAK", "BSYNC")
_ENDS = ("EXIT", "RET", "KILL")


class Flow(NamedTuple):
    """Control flow of a function.

    Attributes
    ----------
    blocks : tuple
        Runs of instructions that are entered at the first and left at the last, in address order.
    graph : networkx.DiGraph
        Which block can follow which, by number.
    dominator : dict
        For each block that can be reached the block that every way to it last passes through; the entry is its own.
    """

    blocks: tuple[tuple[Instruction, ...], ...]
    graph: Any
    dominator: dict[int, int]

    def dominates(self, above: int, below: int) -> bool:
        """Whether every way to `below` passes through `above`."""
        while below != above and self.dominator[below] != below:
            below = self.dominator[below]
        return below == above


def control_flow(instructions: Sequence[Instruction]) -> Flow:
    """Basic blocks of a function, and which can follow which."""
    import networkx as nx

    blocks = tuple(_blocks(instructions))
    if not blocks:
        raise UserError("no instructions: the text is not that of nvdisasm -c")
    at = {label: number for number, block in enumerate(blocks) for label in block[0].labels}
    graph = nx.DiGraph()
    graph.add_nodes_from(range(len(blocks)))
    meets = {i.operands.split(",")[0].strip(): i.targets for i in instructions if i.base == "BSSY"}
    for number, block in enumerate(blocks):
        last = block[-1]
        # A call of a label inside of the function is a jump: it does not come back. A call of another function does.
        jumps = [t for t in (meets.get(last.operands, ()) if last.base == "BSYNC" else last.targets) if t in at]
        if last.base in _JUMPS:
            graph.add_edges_from((number, at[target]) for target in jumps)
        leaves = last.base in _ENDS or (last.base in _JUMPS and bool(jumps))
        if number + 1 < len(blocks) and not (leaves and not _conditional(last)):
            graph.add_edge(number, number + 1)
    dominator = {block: above for block, above in nx.immediate_dominators(graph, 0).items() if above is not None}
    dominator[0] = 0  # networkx before 3.6 says so itself, later ones say None or nothing
    return Flow(blocks, graph, dominator)


def _blocks(instructions: Sequence[Instruction]) -> Iterator[tuple[Instruction, ...]]:
    block: list[Instruction] = []
    for instruction in instructions:
        if instruction.labels and block:
            yield tuple(block)
            block = []
        block.append(instruction)
        if instruction.base in _JUMPS or instruction.base in _ENDS:
            yield tuple(block)
            block = []
    if block:
        yield tuple(block)


def _conditional(jump: Instruction) -> bool:
    """It may also not be taken: it has a predicate, or one among its operands (BRA.U UP0, target)."""
    before = jump.operands.split("`")[0]
    return bool(jump.guard and jump.guard not in ("PT", "UPT")) or (
        jump.base == "BRA" and bool(re.search(r"\b!?U?[PR]\w+", before))
    )


def natural_loops(flow: Flow) -> dict[int, frozenset[int]]:
    """The loops of a function: blocks of each, by the number of its first block, in address order.

    A loop is entered at one block only, which all others of it can reach again.
    """
    loops: dict[int, set[int]] = {}
    for tail, head in flow.graph.edges:
        if tail not in flow.dominator or not flow.dominates(head, tail):
            continue
        body = loops.setdefault(head, {head})
        waiting = [tail]
        while waiting:
            block = waiting.pop()
            if block not in body:
                body.add(block)
                waiting.extend(b for b in flow.graph.predecessors(block) if b in flow.dominator)
    return {head: frozenset(body) for head, body in sorted(loops.items())}


TENSOR = ("HMMA", "QMMA", "HGMMA", "QGMMA", "UTCHMMA", "UTCQMMA")
"""Products of matrices."""

_SINGLE = ("UTC", "UTMA", "SYNCS", "ELECT")
"""Beginnings of names of instructions that one thread issues for the whole CTA."""


def hot_loops(instructions: Sequence[Instruction]) -> tuple[Loop, ...]:
    """The loops over keys, in address order.

    Where the warps do all the same, that is every loop with a tensor product and an exponential: the first one is that of full
    tiles, a second one that of masked tiles. Where they have roles, there is one loop a role.

    Raises
    ------
    UserError
        There is none.
    """
    flow = control_flow(instructions)
    loops = natural_loops(flow)
    held = {head: [_kind(i) for block in body for i in flow.blocks[block]] for head, body in loops.items()}
    found = _innermost({head: body for head, body in loops.items() if {"tensor", "ex2"} <= set(held[head])})
    roles = _innermost({head: body for head, body in loops.items() if any(held[head])})
    if found and not any(_partition(flow, head) is not None for head in roles):
        return tuple(_loop(flow, head, body, "all") for head, body in found.items())
    specialised = [_loop(flow, head, body, _role(held[head])) for head, body in roles.items()]
    if {"softmax", "mma"} <= {loop.role for loop in specialised}:
        return tuple(specialised)
    if found:
        return tuple(_loop(flow, head, body, "all") for head, body in found.items())
    raise UserError("no loop over keys: none has both a tensor product and an exponential, nor do loops of two roles")


def _kind(instruction: Instruction) -> str:
    """What a loop over tiles consists of, and a loop that waits for a barrier has not."""
    if instruction.base in TENSOR:
        return "tensor"
    if instruction.opcode.startswith("MUFU.EX2"):
        return "ex2"
    if instruction.base in ("LDTM", "STTM"):
        return "tmem"
    return "load" if instruction.base in ("UTMALDG", "LDGSTS") else ""


def _innermost(loops: dict[int, frozenset[int]]) -> dict[int, frozenset[int]]:
    return {head: body for head, body in loops.items() if not any(other < body for other in loops.values())}


def _role(held: Sequence[str]) -> str:
    """What warps of their own do; rescaling the output takes exponentials too, but one a row."""
    if "tensor" in held:
        return "mma"
    if held.count("ex2") >= _MANY:
        return "softmax"
    return "rescale" if {"ex2", "tmem"} & set(held) else "load"


_MANY = 4
"""Exponentials of a thread that only scores need, not rows."""


def _partition(flow: Flow, head: int) -> int | None:
    """Which target of the branch over roles every way to a loop passes through."""
    for number, block in enumerate(flow.blocks):
        if block[-1].base == "BRX" and number in flow.dominator and flow.dominates(number, head):
            first = {label: n for n, b in enumerate(flow.blocks) for label in b[0].labels}
            for index, label in enumerate(block[-1].targets):
                if label in first and flow.dominates(first[label], head):
                    return index
    return None


def _loop(flow: Flow, head: int, body: frozenset[int], role: str) -> Loop:
    """Count one iteration: what every warp passes through, and what a single thread does for all.

    Blocks that no warp has to pass through count as if all did. Those that wait for a barrier count once: as if it were there.
    """
    tails = [block for block in flow.graph.predecessors(head) if block in body]
    every: Counter[str] = Counter()
    one: Counter[str] = Counter()
    everything = [i for block in flow.blocks for i in block]
    for number in sorted(body):
        block = flow.blocks[number]
        always = all(flow.dominates(number, tail) for tail in tails)
        elected = not always and any(i.base.startswith(_SINGLE) for i in block)
        for instruction in block:
            single = instruction.base.startswith(("UTC", "UTMA"))
            name = "(never)" if instruction.never else _named(instruction, everything)
            (one if elected or single else every)[name] += 1
    addresses = [i.address for block in body for i in flow.blocks[block]]
    return Loop(role, min(addresses), max(addresses), every, one, _partition(flow, head))


def _named(instruction: Instruction, everything: Sequence[Instruction]) -> str:
    """The opcode; of a tcgen05 product, which does not say so, with the shape that its descriptor holds: UTCHMMA.128x64x16."""
    if not instruction.base.startswith(("UTCHMMA", "UTCQMMA")):
        return instruction.opcode
    register = re.search(r"idesc\[(UR\d+)\]", instruction.operands)
    descriptor = None
    for other in everything if register else ():
        if other.address >= instruction.address:
            break
        assigned = re.fullmatch(rf"{register.group(1) if register else ''}, (0x[0-9a-f]+)", other.operands)
        if other.base == "UMOV" and assigned:
            descriptor = int(assigned.group(1), 16)
    if descriptor is None:
        return instruction.opcode
    # Bits 17 to 22 hold the columns over 8, bits 24 to 28 the rows over 16 (PTX, instruction descriptor of tcgen05.mma).
    rows, columns = (descriptor >> 24 & 31) * 16, (descriptor >> 17 & 63) * 8
    return f"{instruction.opcode}.{rows}x{columns}x{16 if instruction.base == 'UTCHMMA' else 32}"
