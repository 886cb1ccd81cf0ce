"""docs/quality.md names tests that exist, for as many faults as it should."""

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "quality.md").read_text(encoding="utf-8")
REFERENCE = re.compile(r"`([a-z_/]+\.py)::(test_\w+)(?:\[([^`]+)\])?`")


def test_every_test_that_is_named_exists():
    references = REFERENCE.findall(PAGE)
    assert len(references) > 70
    assert PAGE.count(".py::") == len(references)
    for file, name, case in references:
        text = (ROOT / "test" / file).read_text(encoding="utf-8")
        assert f"def {name}(" in text, name
        assert not case or f'id="{case}"' in text, case


def test_the_table_has_its_forty_faults_and_each_a_test():
    rows = re.findall(r"^\| (\d+) \|(.*)\|$", PAGE, re.MULTILINE)
    assert [int(number) for number, _ in rows] == list(range(1, len(rows) + 1))
    assert len(rows) >= 40
    assert all(len(REFERENCE.findall(row)) == 1 for _, row in rows)
