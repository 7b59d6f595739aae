"""Every row of the table of faults is linked to a test that exists."""

import re

from helpers import REPOSITORY

DOCUMENT = REPOSITORY / "docs/faults.md"
LINK = re.compile(r"\[(test_\w+)\]\((\.\./tests/\S+\.py)\)")


def test_every_row_of_the_table_of_faults_is_tested() -> None:
    tables = re.findall(r"(?m)^\| .* \| test \|\n\| ---.*\n((?:\|.*\n?)+)", DOCUMENT.read_text())
    rows = "".join(tables).splitlines()
    assert len(rows) > 30
    for row in rows:
        links = LINK.findall(row)
        assert links, row
        for name, file in links:
            assert f"\ndef {name}(" in (DOCUMENT.parent / file).read_text(), name
