import json

import pytest
from simattn.validation import difference

from simattn import UserError


def test_changes_come_in_the_order_of_their_size(row, tmp_path):
    old = [row(id="same"), row(id="small"), row(id="large"), row(id="gone")]
    path = tmp_path / "old.json"
    path.write_text(json.dumps({"rows": [r.plain() for r in old], "groups": []}))
    new = [row(id="same"), row(id="small", predicted=1.01), row(id="large", predicted=2.0), row(id="fresh")]
    found = difference(new, path)
    assert [c.id for c in found.changes] == ["fresh", "large", "small"]
    assert (found.same, found.gone) == (1, ["gone"])
    assert found.changes[1].closer == pytest.approx(-1)
    assert found.counts() == (0, 2)


def test_classes_are_told_apart(row, tmp_path):
    path = tmp_path / "old.json"
    path.write_text(json.dumps({"rows": [row(part="A").plain(), row(part="B", predicted=2.0).plain()]}))
    assert difference([row(part="A"), row(part="B", predicted=2.0)], path).same == 2


@pytest.mark.parametrize("text", ["", "{}", '{"rows": [{"id": 3}]}'])
def test_another_file_is_refused(row, tmp_path, text):
    path = tmp_path / "old.json"
    path.write_text(text)
    with pytest.raises(UserError, match=r"old\.json is not what simattn validate --json prints"):
        difference([row()], path)
    with pytest.raises(UserError, match="cannot read"):
        difference([row()], tmp_path / "none.json")
