"""Behaviour of modules/reports/tables.py."""

from __future__ import annotations

from modules.reports.tables import Table

TABLE = Table("Runs", ["run", "AP", "steps"], [["a", 0.25, 100_000], ["long name", None, 5]])


def test_text_has_columns_in_line() -> None:
    assert TABLE.format("text").splitlines() == [
        "Runs",
        "run            AP    steps",
        "a          0.2500  100,000",
        "long name       -        5",
    ]


def test_markdown() -> None:
    lines = TABLE.format("markdown").splitlines()
    assert lines[0] == "### Runs"
    assert lines[2:] == [
        "| run       |     AP |   steps |",
        "| --------- | -----: | ------: |",
        "| a         | 0.2500 | 100,000 |",
        "| long name |      - |       5 |",
    ]


def test_csv_has_full_precision_and_empty_cells() -> None:
    table = Table("Runs", ["run", "AP"], [["a,b", 1 / 3], ["c", None]])
    assert table.format("csv") == 'run,AP\n"a,b",0.3333333333333333\nc,\n'
