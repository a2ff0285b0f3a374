"""What to compile: a bundled kernel, or a function of a Python file, with all that a compiler without a GPU has to be told."""

from __future__ import annotations

import importlib
import importlib.util
import inspect
import os
import re
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from msgspec import Struct

from ..facts import UserError, unknown_name

Value = int | float | bool | str | None


class Build(Struct, frozen=True, kw_only=True):
    """What to compile: a bundled kernel, or a function of a file of the user's.

    Attributes
    ----------
    kernel : str
        Name of the bundled kernel, or of the function.
    head_dim : int
        Elements of a row of Q, K and V; 0 to take it from the constants.
    file : str
        The user's file; empty for a bundled kernel, of which the fields below are known.
    signature : tuple of str
        Types of the arguments that are no constants, in order: `*bf16`, `i32`, `fp32`. Pointers and token strides are taken as
        multiples of 16, as what torch allocates is; `i32:1` is an integer that is not.
    constexprs : dict
        Values of the constants, by name.
    warps, stages : int
        Warps of a CTA, and buffers of its pipelined loads.
    block_m, block_n : str or int
        Rows and keys of a tile: the name of the constant that holds it, or a number; empty to guess by common names. Of a bundled
        kernel: numbers, or empty for its default.
    """

    kernel: str
    head_dim: int = 0
    file: str = ""
    signature: tuple[str, ...] = ()
    constexprs: dict[str, Value] = {}
    warps: int = 4
    stages: int = 2
    block_m: str | int = ""
    block_n: str | int = ""


class Config(Struct, frozen=True, kw_only=True):
    """Tile and launch of a compiled kernel."""

    block_m: int
    block_n: int
    head_dim: int
    warps: int
    stages: int
    dtype: str
    tma: bool = False


class Source(Struct, frozen=True, kw_only=True):
    """A kernel with all that the compiler wants to know."""

    name: str
    fn: Any
    signature: dict[str, str]
    constexprs: dict[str, Any]
    attrs: dict[tuple[int, ...], Any]
    options: dict[str, Any]
    config: Config


def load_triton() -> Any:
    """Triton, and its ASTSource and GPUTarget. What it compiles it keeps in the user's cache, or in TRITON_CACHE_DIR."""
    os.environ.setdefault("TRITON_CACHE_DIR", str(_cache_folder()))
    try:
        import triton
        from triton.backends.compiler import GPUTarget
        from triton.compiler import ASTSource
    except ImportError:
        raise UserError("compiling needs Triton: pip install 'simattn[kernels]'") from None
    return triton, ASTSource, GPUTarget


def _cache_folder() -> Path:
    from platformdirs import user_cache_path

    return user_cache_path("simattn") / "triton"


def bundled(build: Build, arch: str) -> Source:
    """A kernel of the package, with the launch that ships for the architecture."""
    given = (build.block_m, build.block_n)
    block = given if all(isinstance(size, int) for size in given) else None
    made = bundled_builds().signature(build.kernel, arch, build.head_dim or 128, block=block)
    names = made["fn"].arg_names
    constexprs = {names[key[0]] if isinstance(key, tuple) else key: value for key, value in made["constexprs"].items()}
    launch = made["options"]
    config = Config(
        **_sizes(build, constexprs),
        warps=launch.get("num_warps", 4),
        stages=launch.get("num_stages", 3),
        dtype=_dtype(made["signature"].values()),
        tma=any(str(text).startswith("tensordesc") for text in made["signature"].values()),
    )
    return Source(
        name=build.kernel,
        fn=made["fn"],
        signature=made["signature"],
        constexprs=constexprs,
        attrs=made["attrs"],
        options=launch,
        config=config,
    )


def bundled_builds() -> Any:
    """The module that knows how the bundled kernels are built."""
    load_triton()
    try:
        return importlib.import_module("simattn.kernels.triton.builds")
    except ModuleNotFoundError as error:
        if error.name and error.name.startswith("simattn"):
            raise UserError("this build of simattn has no bundled kernels; name your own with --file") from None
        raise UserError(f"the bundled kernels need {error.name}: pip install 'simattn[kernels]'") from None


def of_file(build: Build) -> Source:
    """A function of the user's."""
    fn = _load_function(build.file, build.kernel)
    names = list(fn.arg_names)
    constants = [param.name for param in fn.params if param.is_constexpr]
    for name in build.constexprs:
        if name not in names:
            raise unknown_name(f"argument of {build.kernel}", name, names)
    missing = [n for n in constants if n not in build.constexprs and fn.params[names.index(n)].default is inspect.Parameter.empty]
    if missing:
        raise UserError(f"{build.kernel} needs a value of {', '.join(missing)}: --constexpr {missing[0]}=VALUE")
    constexprs = {n: fn.params[names.index(n)].default for n in constants if n not in build.constexprs} | build.constexprs
    free = [name for name in names if name not in constexprs]
    if len(build.signature) != len(free):
        raise UserError(
            f"{build.kernel} has {len(free)} arguments that are no constants, {', '.join(free)}; --signature gives "
            f"{len(build.signature)}"
        )
    signature: dict[str, str] = {}
    attrs: dict[tuple[int, ...], Any] = {}
    for name, text in zip(free, build.signature, strict=True):
        kind, _, divisor = text.strip().partition(":")
        if not _TYPE.fullmatch(kind) or divisor not in ("", "1", "16"):
            raise UserError(f"--signature: {text.strip()!r} of {name} is not a type; expected such as *bf16, i32, i32:1, fp32")
        signature[name] = kind
        whole = kind.startswith(("*", "i", "u"))
        if whole and divisor != "1":
            attrs[(names.index(name),)] = [["tt.divisibility", 16]]
    sizes = _sizes(build, constexprs)
    for value, what in ((build.warps, "warps"), (build.stages, "stages")):
        if value < 1 or (what == "warps" and value & (value - 1)):
            raise UserError(f"--{what} must be a {'power of two' if what == 'warps' else 'positive number'}, got {value}")
    return Source(
        name=build.kernel,
        fn=fn,
        signature={name: signature.get(name, "constexpr") for name in names},
        constexprs=constexprs,
        attrs=attrs,
        options={"num_warps": build.warps, "num_stages": build.stages},
        config=Config(
            **sizes,
            warps=build.warps,
            stages=build.stages,
            dtype=_dtype(signature.values()),
            tma=any(text.startswith("tensordesc") for text in signature.values()),
        ),
    )


_TYPE = re.compile(r"\*?(?:bf16|fp16|fp32|fp64|fp8e4nv|fp8e5|i1|i8|i16|i32|i64|u8|u16|u32|u64)|tensordesc<.*>")


def _load_function(file: str, function: str) -> Any:
    """A function of a Python file, which is run for it."""
    path = Path(file)
    if not path.is_file():
        raise UserError(f"no such file: {file}")
    load_triton()
    spec = importlib.util.spec_from_file_location(f"_simattn_user_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise UserError(f"{file} is not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module.__name__] = module
    folder = str(path.parent.resolve())
    sys.path.insert(0, folder)
    try:
        spec.loader.exec_module(module)
    except UserError:
        raise
    except Exception as error:  # Anything can be in a user's file.
        raise UserError(f"{file} cannot be imported: {type(error).__name__}: {_first_line(error)}") from None
    finally:
        sys.path.remove(folder)
    found = {name: _jitted(value) for name, value in vars(module).items()}
    jitted = {name: value for name, value in found.items() if hasattr(value, "arg_names") and hasattr(value, "params")}
    if function not in jitted:
        raise unknown_name(f"@triton.jit function of {path.name}", function, jitted)
    return jitted[function]


def _jitted(value: Any) -> Any:
    """The function below @triton.autotune and @triton.heuristics."""
    while type(value).__name__ in ("Autotuner", "Heuristics"):
        value = value.fn
    return value


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [""])[0][:200]


_NAMES = {
    "block_m": ("BLOCK_M", "BM", "BLOCK_SIZE_M", "BLOCK_Q", "TILE_M"),
    "block_n": ("BLOCK_N", "BN", "BLOCK_SIZE_N", "BLOCK_KV", "BLOCK_K", "TILE_N"),
    "head_dim": ("HEAD_DIM", "D", "BLOCK_DMODEL", "D_HEAD", "HEAD_SIZE", "DIM", "BLOCK_D", "D_QK"),
}
"""What kernels call the constants with the size of a tile."""


def _sizes(build: Build, constexprs: Mapping[str, Any]) -> dict[str, int]:
    """Rows, keys and head width of a tile."""
    sizes = {}
    for size, names in _NAMES.items():
        given = getattr(build, size)
        if isinstance(given, str) and given and given not in constexprs:
            raise unknown_name(f"constant for --{size.replace('_', '-')}", given, constexprs)
        guessed = next((name for name in names if isinstance(constexprs.get(name), int)), None)
        value = constexprs[given] if isinstance(given, str) and given else given or constexprs.get(guessed or "")
        if not isinstance(value, int) or value < 1:
            names_too = "" if size == "head_dim" else f", or the name of one of {', '.join(constexprs)}"
            raise UserError(f"what is the {size} of {build.kernel}? --{size.replace('_', '-')} NUMBER{names_too}")
        if size == "head_dim" and given and guessed and constexprs[guessed] != given:
            raise UserError(f"{build.kernel} is built with {guessed}={constexprs[guessed]}, and --head-dim is {given}")
        sizes[size] = value
    return sizes


def _dtype(types: Iterable[str]) -> str:
    """Type of the elements, from the first argument that is a pointer or a descriptor."""
    for text in types:
        found = re.match(r"(?:\*|tensordesc<)(bf16|fp16|fp8|fp32)", text)
        if found:
            return found.group(1)
    raise UserError("no argument is a pointer: --signature has none that begins with *")
