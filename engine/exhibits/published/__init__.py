"""Figures as the papers print them, each with its source; never mixed with ours."""

import functools
import json
import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

FOLDER = Path(__file__).parent
# how open_clip names what the papers name; the weights must be CLIP's own or LAION's, not random
NAMES = (
    (re.compile(r"^vit-?b-?32"), "ViT-B/32"),
    (re.compile(r"^vit-?b-?16"), "ViT-B/16"),
    (re.compile(r"^vit-?l-?14(?!-336)"), "ViT-L/14"),
    (re.compile(r"^convnext"), "ConvNeXt"),
    (re.compile(r"^timm/vit_base_patch16"), "ViT-B/16 (supervised)"),
)


@dataclass(frozen=True)
class Published:
    """One figure as it was printed.

    Attributes:
        exhibit: Name of the exhibit it belongs to.
        encoder: As the paper names it.
        row: Key of the row, as ours.
        column: Key of the column, as ours.
        printed: What stands in the paper, in per cent.
        value: The same as a fraction.
        where: Table or figure.
        paper: arXiv id; "" where several sources were gathered.
        note: What must be known to read it.
        family: Of checkpoints, where it has a name; figures of two families are not compared.
        title: Of the row, where ours has none.
        source: Which file it is from, for ``protocol``.
    """

    exhibit: str
    encoder: str
    row: str
    column: str
    printed: str
    value: float
    where: str
    paper: str
    note: str = ""
    family: str = ""
    title: str = ""
    source: str = ""

    def record(self) -> dict:
        """Return plain values."""
        return asdict(self)


def published(exhibit: str, encoder: str | None = None) -> tuple[Published, ...]:
    """Return the published figures of an exhibit.

    Args:
        exhibit: Its name.
        encoder: By our name or the paper's; None for all.

    Returns:
        Figures in the order of the paper; none where nothing like it was published.
    """
    known = None if encoder is None else published_name(encoder) or encoder
    return tuple(
        figure
        for figure in _everything()
        if figure.exhibit == exhibit and known in (None, figure.encoder)
    )


def published_name(encoder: str) -> str | None:
    """Translate the name of an encoder into that of the papers.

    Args:
        encoder: As for ``load_encoder``.

    Returns:
        "ViT-B/32", "ViT-B/16", "ViT-L/14", "ConvNeXt"; None if the papers have none like it, as
        of random weights.
    """
    architecture, _, tag = encoder.lower().partition(":")
    if tag.startswith("random"):
        return None
    return next((name for pattern, name in NAMES if pattern.match(architecture)), None)


def protocol(source: str) -> dict:
    """Return what a file says of how its figures were made.

    Args:
        source: Of a figure.

    Returns:
        "paper", "title", "protocol", "unit", and where they are known "recipe" (steps, batch and
        rate of fine-tuning) and "alphas" (how they were set otherwise than here).
    """
    return {key: value for key, value in _files()[source].items() if key != "tables"}


@functools.cache
def _files() -> dict[str, dict]:
    """Return the contents of all files by name."""
    return {path.stem: json.loads(path.read_text()) for path in sorted(FOLDER.glob("*.json"))}


@functools.cache
def _everything() -> tuple[Published, ...]:
    """Return all figures of all files."""
    return tuple(figure for name, file in _files().items() for figure in _figures(name, file))


def _figures(source: str, file: dict) -> Iterator[Published]:
    """Give the figures of one file."""
    for table in file["tables"]:
        for encoder, rows in table["figures"].items():
            for row, values in rows.items():
                for column, printed in zip(table["columns"], values, strict=True):
                    if printed is not None:
                        yield Published(
                            table["exhibit"], encoder, row, column, printed,
                            round(float(printed) / 100, 6), table["where"], file["paper"],
                            table.get("note", ""), file.get("family", ""),
                            file.get("titles", {}).get(row, ""), source,
                        )  # fmt: skip
