"""Formulas in data files: what they give, and that nothing but arithmetic gets in."""

import pytest
from simattn.facts import UserError
from simattn.workloads.expressions import check, value

NAMES = {"N": 1000, "d": 128, "text": 0, "block": 64}


@pytest.mark.parametrize(
    ("formula", "number"),
    [
        (7, 7),
        ("2 * ceil(N / block) * d", 4096),
        ("floor(N / block) ** 2", 225),
        ("N // block + N % block", 55),
        ("max(N, d) - min(N, d)", 872),
        ("log2(block) * sqrt(block)", 48),
        ("N if text else d", 128),
        ("N * (text > 0)", 0),
        ("1e-6 * N", 1e-3),
    ],
)
def test_values(formula, number):
    check(formula, NAMES)
    assert value(formula, NAMES) == pytest.approx(number)


@pytest.mark.parametrize(
    ("formula", "said"),
    [
        ("2 *", "is no expression"),
        ("bloc * 2", "unknown name 'bloc'; did you mean 'block'"),
        ("ceill(N)", "unknown function 'ceill'; did you mean 'ceil'"),
        ("ceil", "unknown name 'ceil'"),
        ("N(2)", "unknown function 'N'"),
        ("'a' * 9", "'a' is no number"),
        ("N.real", "is no expression of numbers"),
        ("[N][0]", "is no expression of numbers"),
        ("ceil(N, x=1)", "is no expression of numbers"),
        ("(lambda: N)()", "is no expression of numbers"),
        ("__import__('os')", "unknown function '__import__'"),
        ("N; d", "is no expression"),
    ],
)
def test_what_is_no_arithmetic_is_refused_when_read(formula, said):
    with pytest.raises(UserError) as caught:
        check(formula, NAMES)
    assert said in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("formula", ["N / text", "text - N", "sqrt(0 - N)", "missing + 1", "9 ** 9 ** 9", "1e308 * 1e308"])
def test_what_has_no_value_is_said(formula):
    with pytest.raises(UserError, match=r"has no value here|must be a finite number|is no expression"):
        value(formula, NAMES)
