"""Options and value types that several commands share."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import click
from click.shell_completion import CompletionItem

if TYPE_CHECKING:
    from ..hwspecs import GpuSpec
    from ..kernels import KernelProfile
    from ..kernels.source import Build

F = TypeVar("F", bound=Callable[..., Any])


class Shape(click.ParamType[tuple[int, ...]]):
    """One to three whole numbers: 128, 256x256, 30x48x80."""

    name = "N[xN[xN]]"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, ...]:
        if isinstance(value, tuple):
            return value
        parts = re.split(r"[x,]", str(value).lower())
        if len(parts) > 3 or not all(re.fullmatch(r"[+-]?\d+", part) for part in parts):
            self.fail(f"expected one to three whole numbers such as 30x48x80, got {value!r}", param, ctx)
        numbers = tuple(int(part) for part in parts)
        if min(numbers) < 1:
            self.fail(f"every number must be at least 1, got {value!r}", param, ctx)
        return numbers


def parse_value(text: str) -> Any:
    """The value of a `--set` option: true, 7, 0.5, 18x24x24, 100,200 or a word.

    >>> [parse_value(t) for t in ("true", "7", "0.5", "18x24x24", "100,200", "wan", "true,false")]
    [True, 7, 0.5, (18, 24, 24), (100, 200), 'wan', (True, False)]
    """
    text = text.removeprefix("[").removesuffix("]").strip()
    if re.fullmatch(r"-?\d+(x-?\d+)+", text):
        return tuple(int(part) for part in text.split("x"))
    if "," in text:
        return tuple(parse_value(part) for part in text.split(",") if part)
    if text.lower() in ("true", "false"):
        return text.lower() == "true"
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def parse_settings(settings: tuple[str, ...]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Parameters of the pattern, and overrides of the GPU (`hw.chip.sm_count=100`), from `--set` options."""
    params: dict[str, Any] = {}
    hardware: dict[str, Any] = {}
    for setting in settings:
        name, equals, text = setting.partition("=")
        if not equals or not name or not text:
            raise click.BadParameter(f"expected name=value, got {setting!r}", param_hint="--set")
        if name.startswith("hw."):
            _set_leaf(hardware, "hw", name, text)
        else:
            params[name] = parse_value(text)
    return params, hardware


def parse_kernel_settings(settings: tuple[str, ...]) -> tuple[tuple[str, ...], dict[str, Any]]:
    """The other `--set` options, and overrides of the kernel (`kernel.mask.policy=all`).

    >>> parse_kernel_settings(("decay=0.9", "kernel.launch.order=ascending"))
    (('decay=0.9',), {'launch': {'order': 'ascending'}})
    """
    kernel: dict[str, Any] = {}
    for setting in settings:
        name, _, text = setting.partition("=")
        if name.startswith("kernel."):
            if not text:
                raise click.BadParameter(f"expected name=value, got {setting!r}", param_hint="--set")
            _set_leaf(kernel, "kernel", name, text)
    return tuple(setting for setting in settings if not setting.startswith("kernel.")), kernel


def _set_leaf(table: dict[str, Any], prefix: str, name: str, text: str) -> None:
    """Set the leaf that `prefix.TABLE.KEY` names in nested tables."""
    *path, leaf = name.removeprefix(f"{prefix}.").split(".")
    for key in path:
        table = table.setdefault(key, {})
        if not isinstance(table, dict):
            raise click.BadParameter(f"{prefix}.{key} is set twice, as a value and as a table", param_hint="--set")
    if isinstance(table.get(leaf), dict):
        raise click.BadParameter(f"{name} is set twice, as a value and as a table", param_hint="--set")
    table[leaf] = parse_value(text)


class Call(NamedTuple):
    """A call as the options ask for it: arguments of `predict` and `explain`."""

    pattern: str
    spec: GpuSpec
    options: dict[str, Any]


def read_call(pattern: str | None, mask_file: str | None, hw: str, settings: tuple[str, ...], options: dict[str, Any]) -> Call:
    """Put together what the options of `problem_options` ask for.

    Raises
    ------
    UserError
        A name or value of the GPU or the kernel is not usable.
    """
    import msgspec

    from ..hwspecs import gpus

    mask_mod, qk = options.pop("mask_mod", None), options.pop("qk", None)
    if sum(given is not None for given in (pattern, mask_file, mask_mod)) != 1:
        raise click.UsageError("give one of --pattern, --mask and --mask-mod")
    settings, profile = parse_kernel_settings(settings)
    params, hardware = parse_settings(settings)
    spec = gpus.load(hw, hardware)
    build = {name: options.pop(name) for name in BUILD_OPTIONS if name in options}
    file = options.pop("kernel_file", None)
    given = {name: value for name, value in options.items() if value is not None} | {"params": params}
    if file is not None:
        if "kernel" in given:
            raise click.UsageError("give either --kernel or --kernel-file")
        given["kernel"] = _file_kernel(file, hw, build, given.get("head_dim"))
    elif any(build.values()):
        raise click.UsageError(
            "--signature, --constexpr, --warps, --stages, --block-m and --block-n say how a --kernel-file is built"
        )
    for name, value in (("file", mask_file), ("function", mask_mod), ("qk", qk)):
        if value is not None:
            if name in params:
                raise click.UsageError(f"give the {name} once")
            params[name] = value
    call = Call(pattern or ("mask_file" if mask_file else "mask_function"), spec, given)
    if profile:
        call.options["kernel"] = _changed_kernel(call, profile)
    changed = [s for s in settings if s.startswith("hw.")] + [f"kernel.{path}" for path in _written(profile)]
    if changed:
        spec = msgspec.structs.replace(spec, title=f"{spec.title} (changed: {', '.join(changed)})")
    return call._replace(spec=spec)


def _changed_kernel(call: Call, changes: dict[str, Any]) -> KernelProfile:
    """The kernel asked for, or the one that would run the call, with other values."""
    from ..explain import changed_kernel
    from ..kernels import kernels
    from ..simulator import predict

    name = call.options.get("kernel")
    if name is None:
        quick = {"fidelity": "fast"} if call.options.get("fidelity") == "cycle" else {}
        name = predict(call.pattern, call.spec, **{**call.options, **quick}).kernel
    return changed_kernel(name, kernels.document(name), changes)


def _written(table: dict[str, Any], prefix: str = "") -> list[str]:
    """Leaves of nested tables as they are written: `mask.policy=all`."""
    return [
        text
        for key, value in table.items()
        for text in (_written(value, f"{prefix}{key}.") if isinstance(value, dict) else [f"{prefix}{key}={value}"])
    ]


def user_build(
    file: str,
    *,
    signature: str | None,
    constexprs: tuple[str, ...],
    warps: int | None,
    stages: int | None,
    block_m: str,
    block_n: str,
    head_dim: int = 0,
) -> Build:
    """What the options of `build_options` ask to be built."""
    from ..kernels.source import Build

    path, colon, function = file.rpartition(":")
    if not colon or not path or not function.isidentifier():
        raise click.UsageError(f"expected FILE:FUNCTION, such as my_kernel.py:attention, got {file!r}")
    values = {}
    for text in constexprs:
        name, equals, value = text.partition("=")
        if not equals or not name.isidentifier() or not value:
            raise click.BadParameter(f"expected NAME=VALUE, got {text!r}", param_hint="--constexpr")
        values[name] = None if value == "None" else parse_value(value)
    if signature is None:
        raise click.UsageError(f"{function} needs --signature: the types of its arguments that are no constants")
    return Build(
        kernel=function,
        file=path,
        head_dim=head_dim,
        signature=tuple(_types(signature)),
        constexprs=values,
        warps=4 if warps is None else warps,
        stages=2 if stages is None else stages,
        block_m=_size(block_m),
        block_n=_size(block_n),
    )


def _types(signature: str) -> list[str]:
    """Types of a signature; commas in brackets do not part them.

    >>> _types("*bf16, tensordesc<bf16[64, 128]>, i32")
    ['*bf16', 'tensordesc<bf16[64, 128]>', 'i32']
    """
    return [part.strip() for part in re.split(r",(?![^<]*>)", signature) if part.strip()]


def _size(text: str) -> str | int:
    return int(text) if text.isdigit() else text


def _file_kernel(file: str, hw: str, options: dict[str, Any], head_dim: int | None) -> str:
    """Compile a function of a user's file for a GPU, and lend its profile to the shelf: the name to load it by."""
    from ..kernels import kernels
    from ..kernels.compiled import compile_kernel
    from ..kernels.compiled_profile import profile_of

    build = user_build(file, **options, head_dim=head_dim or 0)
    click.echo(f"simattn: compiling {build.kernel} ...", err=True)
    profile = profile_of(compile_kernel(build, hw), name=f"{Path(build.file).name}:{build.kernel}")
    kernels.lend(profile.name, profile)
    return profile.name


def _complete_hw(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from ..hwspecs import gpus

    return _completions([*gpus.names(), *gpus.aliases()], incomplete)


def _complete_pattern(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
    from ..workloads import systems

    return _completions([*systems.names(), *systems.aliases()], incomplete)


def _completions(names: list[str], incomplete: str) -> list[CompletionItem]:
    return [CompletionItem(name) for name in sorted(names) if name.startswith(incomplete)]


def comma_names(ctx: click.Context, param: click.Parameter, value: str | None) -> list[str] | None:
    """Names with commas between them, of an option that takes several."""
    names = None if value is None else [name.strip() for name in value.split(",") if name.strip()]
    if names == []:
        raise click.BadParameter("expected names with commas between them")
    return names


def hw_option(function: F) -> F:
    """`--hw`."""
    return click.option("--hw", required=True, metavar="GPU", shell_complete=_complete_hw, help="Name, alias or TOML file.")(
        function
    )


def pattern_option(function: F) -> F:
    """`--pattern`."""
    return click.option(
        "--pattern", metavar="NAME", shell_complete=_complete_pattern, help="Name of a pattern (simattn patterns list)."
    )(function)


def json_option(function: F) -> F:
    """`--json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print one JSON value.")(function)


def build_options(function: F) -> F:
    """Options that say how a function of a user's file is built."""
    for option in reversed(
        (
            click.option(
                "--signature",
                metavar="TYPES",
                help="Types of the arguments that are no constants, in order: '*bf16,*bf16,i32,fp32'. Pointers and integers are "
                "taken as multiples of 16; i32:1 is not.",
            ),
            click.option("--constexpr", "constexprs", multiple=True, metavar="NAME=VALUE", help="Value of a constant argument."),
            click.option("--warps", type=int, help="Warps of a CTA; 4 by default."),
            click.option("--stages", type=int, help="Buffers of pipelined loads; 2 by default."),
            click.option("--block-m", metavar="NAME|N", default="", help="Rows of a tile; guessed from constants like BLOCK_M."),
            click.option("--block-n", metavar="NAME|N", default="", help="Keys of a tile; guessed from constants like BLOCK_N."),
        )
    ):
        function = option(function)
    return function


BUILD_OPTIONS = ("signature", "constexprs", "warps", "stages", "block_m", "block_n")
"""What `build_options` gives a command."""


GRID_OPTIONS = (
    click.option("--grid", type=Shape(), help="Tokens along each axis, slowest first: 30x48x80."),
    click.option("--text", type=int, help="Text tokens behind the grid."),
    click.option("--frames", type=int, help="Frames of a video, with --tokens-per-frame."),
    click.option("--tokens-per-frame", type=int, help="Tokens of one frame, with --frames."),
    click.option("--seq-q", type=int, help="Queries of a flat sequence."),
    click.option("--seq-kv", type=int, help="Keys, where they are not as many as the queries."),
)


def set_option(function: F) -> F:
    """`--set`."""
    return click.option(
        "--set", "settings", multiple=True, metavar="NAME=VALUE", help="Parameter of the pattern, or hw.TABLE.KEY."
    )(function)


def layout_options(function: F) -> F:
    """Options that say which tokens there are, and the pattern's parameters."""
    for option in reversed((*GRID_OPTIONS, set_option)):
        function = option(function)
    return function


def tile_options(function: F) -> F:
    """Options that replace the kernel's tile."""
    function = click.option("--kv-tile", type=Shape(), help="Keys of a tile: 128 or 4x4x8.")(function)
    return click.option("--q-tile", type=Shape(), help="Queries of a tile: 128 or 8x4x8.")(function)


def problem_sizes(function: F) -> F:
    """Options that say which shapes a call has: a model's, or one's own."""
    for option in reversed(
        (
            click.option("--model", metavar="NAME", help="Shapes of a published model (simattn models list)."),
            click.option("--shape", metavar="NAME", help="One of the model's settings (simattn models show MODEL)."),
            *GRID_OPTIONS,
            click.option("--batch", type=int, help="Batch items."),
            click.option("--q-heads", type=int, help="Query heads."),
            click.option("--kv-heads", type=int, help="Must divide --q-heads."),
            click.option("--head-dim", type=int, help="Width of Q and K."),
            click.option("--head-dim-v", type=int, help="Width of V and O, where it is not --head-dim."),
            click.option("--dtype", metavar="bf16|fp16|fp8", help="Type of Q, K and V."),
            click.option("--causal/--no-causal", default=None, help="Only keys up to self."),
            click.option(
                "--phase",
                metavar="prefill|decode|backward",
                help="What the call is part of; a decode step has one query a sequence unless --seq-q says more.",
            ),
        )
    ):
        function = option(function)
    return function


def problem_setting(function: F) -> F:
    """Options that say how a call is run, and how closely it is simulated."""
    for option in reversed(
        (
            click.option("--baseline", metavar="NAME", help="Kernel of the dense call; the fastest profiled one by default."),
            click.option(
                "--fidelity",
                metavar="bound|fast|cycle",
                default="fast",
                show_default=True,
                help="Closed form, every CTA dispatched to an SM, or every tile of every CTA.",
            ),
            click.option(
                "--clock",
                metavar="sustained|burst|boost",
                default="sustained",
                show_default=True,
                help="Falls with load and run time, always the highest, or that of the data sheet.",
            ),
            click.option("--seed", type=int, default=0, show_default=True, help="Seed of patterns that draw at random."),
        )
    ):
        function = option(function)
    return function


def host_options(function: F) -> F:
    """Options that say what the GPU waits for before a call."""
    for option in reversed(
        (
            click.option(
                "--host-ms",
                type=float,
                metavar="MS",
                help="Time to build a mask or a plan while the GPU waits: a side op of the call.",
            ),
            click.option("--reuse", type=float, metavar="N", help="Calls that make use of one mask or plan; 1 by default."),
        )
    ):
        function = option(function)
    return function


def problem_options(function: F) -> F:
    """Options of a call: what is computed, on which GPU, by which kernel, and how closely it is simulated."""
    for option in reversed(
        (
            pattern_option,
            click.option(
                "--mask",
                "mask_file",
                type=click.Path(),
                metavar="FILE",
                help="Block mask (.npz, .npy, or a saved BlockMask) in place of a pattern.",
            ),
            click.option(
                "--mask-mod",
                metavar="FILE.py:NAME",
                help="Mask function (b, h, q_idx, kv_idx) on numpy arrays, as FlexAttention's mask_mod, in place of a pattern.",
            ),
            click.option(
                "--qk",
                type=click.Path(),
                metavar="FILE",
                help="Q and K (.npz: q, k [heads, tokens, d]) on which the pattern's own estimate decides, not a random draw.",
            ),
            hw_option,
            set_option,
            problem_sizes,
            tile_options,
            click.option(
                "--kernel",
                metavar="NAME",
                help="Kernel that runs it (simattn kernels list); --set kernel.TABLE.KEY=VALUE changes its profile.",
            ),
            click.option(
                "--kernel-file",
                metavar="FILE:FUNCTION",
                help="A Triton kernel of your own, which is compiled and read (see simattn kernels compile --help).",
            ),
            build_options,
            problem_setting,
        )
    ):
        function = option(function)
    return function
