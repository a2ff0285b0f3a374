"""Methods that run as another entry does: each says which and why, and predict passes that on."""

import pytest
from simattn.facts import UserError
from simattn.workloads import Pattern, related, systems


def test_there_are_as_many_as_known():
    assert len(related()) == 36


@pytest.mark.parametrize("name", related())
def test_each_says_what_to_predict_or_that_nothing_is(name):
    entry = related()[name]
    assert entry.title
    assert entry.why
    if entry.pattern is None:
        assert "nothing is simulated" in entry.advice(name)
    else:
        assert f"--pattern {entry.pattern}" in entry.advice(name)
        assert systems.resolve(entry.pattern)


def test_asking_for_one_says_what_to_do():
    with pytest.raises(UserError, match=r"smallthinker .* use --pattern sliding_window") as caught:
        Pattern("SmallThinker")
    assert "\n" not in str(caught.value)
    with pytest.raises(UserError, match="sasrec"):
        Pattern("sasrec")


def test_no_name_is_taken_twice():
    assert not related().keys() & {*systems.names(), *systems.aliases()}
