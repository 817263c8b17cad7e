"""Exhibits: the papers' tables and figures, filled from what the store keeps."""

from engine.exhibits.comparing import Compared
from engine.exhibits.definitions import EXHIBITS
from engine.exhibits.exhibit import Cell, Column, Exhibit, Figure, Filled, Row, Run, Table
from engine.exhibits.filling import filled
from engine.exhibits.published import Published, published, published_name
from engine.exhibits.report import provenance_of, write_report

__all__ = [
    "EXHIBITS",
    "Cell",
    "Column",
    "Compared",
    "Exhibit",
    "Figure",
    "Filled",
    "Published",
    "Row",
    "Run",
    "Table",
    "filled",
    "provenance_of",
    "published",
    "published_name",
    "write_report",
]
