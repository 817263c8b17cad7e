"""What a clone shows of the report: every number's source is in it, and nothing is left to run."""

import json
from pathlib import Path

import pytest

from engine.exhibits import EXHIBITS, filled
from engine.exhibits.exhibit import NOT_RUN
from engine.store import Store

ROOT = Path(__file__).parents[1]
EMBEDDED = ROOT / "cache" / "embedded"
KINDS = ("encoder", "checkpoint", "responses", "result")
REPORT = ROOT / "docs" / "report" / "report.json"
SLOW = ("disentanglement",)  # works 27 maps out of class scores


@pytest.fixture
def clone(tmp_path) -> Store:
    """Give the store of a fresh clone: what is embedded and an empty home."""
    return Store(tmp_path / "home", EMBEDDED)


def test_every_entry_of_the_report_is_embedded(clone):
    report = json.loads(REPORT.read_text())
    there = {entry.digest for kind in KINDS for entry in clone.find(kind)}
    lacking = sorted(set(report["entries"]) - there)
    assert not lacking, (
        f"{len(lacking)} of {len(report['entries'])} entries are not in cache/embedded, first "
        f"{lacking[0]}; embed them, or write the report again from what is there"
    )


def test_every_source_of_the_report_is_among_its_entries():
    report = json.loads(REPORT.read_text())
    named = {
        source
        for exhibit in report["exhibits"]
        for table in exhibit["tables"]
        for row in table["rows"]
        for cell in row["cells"].values()
        for source in cell["sources"]
    }
    assert len(named) > 50
    assert named <= set(report["entries"])


@pytest.mark.parametrize(
    "name", [pytest.param(n, marks=pytest.mark.slow if n in SLOW else ()) for n in EXHIBITS]
)
def test_a_clone_has_nothing_to_run(clone, name):
    found = filled(clone, "miniature", name)
    assert found.tables or found.why_not
    lacking = [
        (table.name, row.name, column)
        for table in found.tables
        for row in table.rows
        for column, cell in row.cells.items()
        if cell.state == NOT_RUN
    ]
    assert not lacking
    assert not found.missing
