"""Expressions of numbers in data files: bytes, FLOPs and launches of the kernels beside an attention.

They are evaluated by `simpleeval`, over a closed set of names and functions, and checked when their file is loaded.
"""

from __future__ import annotations

import ast
import math
from collections.abc import Collection, Mapping
from functools import lru_cache
from typing import Any

from simpleeval import InvalidExpression, SimpleEval

from ..facts import UserError, unknown_name

Formula = str | int | float
"""A number, or an expression of one."""

FUNCTIONS: dict[str, Any] = {
    "ceil": math.ceil,
    "floor": math.floor,
    "min": min,
    "max": max,
    "log2": math.log2,
    "sqrt": math.sqrt,
}

_NODES = (
    ast.Expr,
    ast.BinOp,
    ast.UnaryOp,
    ast.IfExp,
    ast.Compare,
    ast.Call,
    ast.Name,
    ast.Load,
    ast.Constant,
    ast.operator,
    ast.unaryop,
    ast.cmpop,
)


def check(formula: Formula, names: Collection[str]) -> None:
    """Refuse a formula that is no expression of numbers over some names.

    Raises
    ------
    UserError
        It does not parse, or uses a name, function or construct that is not allowed.

    Examples
    --------
    >>> check("2 * ceil(N / block) * d", ("N", "d", "block"))
    """
    tree = _parsed(str(formula))
    calls = [node for node in ast.walk(tree) if isinstance(node, ast.Call)]
    called = {id(call.func) for call in calls if isinstance(call.func, ast.Name) and not call.keywords}
    for node in ast.walk(tree):
        if not isinstance(node, _NODES) or (isinstance(node, ast.Call) and id(node.func) not in called):
            raise UserError(f"{formula!r} is no expression of numbers")
        if isinstance(node, ast.Constant) and not isinstance(node.value, int | float):
            raise UserError(f"{formula!r}: {node.value!r} is no number")
        if isinstance(node, ast.Name):
            allowed, what = (FUNCTIONS, "function") if id(node) in called else (names, "name")
            if node.id not in allowed:
                raise UserError(f"{formula!r}: {unknown_name(what, node.id, allowed)}")


def value(formula: Formula, names: Mapping[str, float]) -> float:
    """The number that a formula gives.

    Raises
    ------
    UserError
        A name has no value here, or the arithmetic fails.

    Examples
    --------
    >>> value("2 * ceil(N / block) * d", {"N": 1000, "block": 64, "d": 128})
    4096.0
    """
    if not isinstance(formula, str):
        return float(formula)
    try:
        number = float(SimpleEval(functions=FUNCTIONS, names=dict(names)).eval(formula, _parsed(formula)))
    except (InvalidExpression, ArithmeticError, ValueError, TypeError) as error:
        raise UserError(f"{formula!r} has no value here: {str(error).splitlines()[0]}") from None
    if not math.isfinite(number) or number < 0:
        raise UserError(f"{formula!r} must be a finite number that is not negative, got {number:g}")
    return number


@lru_cache(maxsize=4096)
def _parsed(text: str) -> ast.AST:
    if ";" in text:
        raise UserError(f"{text!r} is no expression: it holds several")
    try:
        tree: ast.AST = SimpleEval.parse(text)
    except (InvalidExpression, SyntaxError) as error:
        raise UserError(f"{text!r} is no expression: {str(error).splitlines()[0]}") from None
    return tree
