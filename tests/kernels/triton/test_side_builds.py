"""Decode and side kernels compile without a GPU, and load 16 bytes a thread."""

import json
import os
import subprocess
import sys

import pytest

os.environ.setdefault("TRITON_INTERPRET", "1")
pytest.importorskip("torch")
pytest.importorskip("triton")

from simattn.facts import UserError
from simattn.kernels.triton import side_builds

COMPILE = """
import json, sys
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from simattn.kernels.triton import side_builds
for name in side_builds.names():
    build = side_builds.signature(name, "sm90", 64)
    source = ASTSource(build["fn"], build["signature"], build["constexprs"], build["attrs"])
    compiled = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=build["options"])
    print(json.dumps([name, compiled.metadata.shared, compiled.asm["ptx"]]))
"""


def test_unknown_name():
    with pytest.raises(UserError, match="decode_page16"):
        side_builds.signature("decode_page_16", "sm90", 64)


@pytest.mark.parametrize("name", side_builds.names())
def test_every_argument_is_named_once(name):
    build = side_builds.signature(name, "sm90", 128)
    fixed = {index for (index,) in build["constexprs"]}
    arguments = list(build["signature"].items())
    assert [argument for argument, _ in arguments] == list(build["fn"].arg_names)
    assert fixed == {index for index, (_, kind) in enumerate(arguments) if kind == "constexpr"}
    assert not fixed & {index for (index,) in build["attrs"]}


def test_compile(tmp_path):
    """One architecture in a process of its own, since the interpreter is on in this one."""
    environment = {**os.environ, "TRITON_INTERPRET": "0", "TRITON_CACHE_DIR": str(tmp_path)}
    run = subprocess.run(
        [sys.executable, "-c", COMPILE], env=environment, capture_output=True, text=True, check=False, timeout=300
    )
    assert run.returncode == 0, run.stderr[-2000:]
    rows = {name: (shared, ptx) for name, shared, ptx in map(json.loads, run.stdout.splitlines())}
    assert list(rows) == side_builds.names()
    # Keys and values reach shared memory ahead of their use, 16 bytes a thread.
    for name in ("decode", "decode_page16", "decode_tokens", "decode_pages", "linear_state", "vertical_slash_lse"):
        assert "cp.async.cg.shared.global" in rows[name][1], name
    for name in ("permute", "unpermute", "mean_pool", "block_score"):
        assert "ld.global.v4" in rows[name][1], name
    assert max(shared for shared, _ in rows.values()) <= 99 * 1024
