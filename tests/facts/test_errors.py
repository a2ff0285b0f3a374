"""UserError and the nearest name."""

import pytest
from simattn.facts import UserError, unknown_name


def test_a_user_error_is_a_value_error():
    assert issubclass(UserError, ValueError)


@pytest.mark.parametrize(("got", "nearest"), [("b2000", "b200"), ("h10", "h100"), ("radail", "radial")])
def test_the_nearest_name_is_offered(got, nearest):
    message = str(unknown_name("thing", got, ["radial", "h100", "b200", "b200"]))
    assert message == f"unknown thing {got!r}; did you mean {nearest!r}? known: b200, h100, radial"


@pytest.mark.parametrize("got", ["", "zzzz"])
def test_nothing_is_offered_where_nothing_is_near(got):
    assert str(unknown_name("thing", got, ["b200"])) == f"unknown thing {got!r}; known: b200"


def test_an_empty_list_of_names():
    assert isinstance(unknown_name("thing", "x", []), UserError)


def test_of_a_long_list_the_nearest_are_named():
    names = [f"pattern_{n}" for n in range(200)]
    message = str(unknown_name("pattern", "pattern_1o", names))
    assert message.startswith("unknown pattern 'pattern_1o'; did you mean 'pattern_1")
    assert "nearest of 200: " in message
    assert message.count(",") == 7
