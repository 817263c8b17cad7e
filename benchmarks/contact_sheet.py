"""Draw the contact sheet of the miniature world: for every family a row of classes a style.

The broad style is above, the task's own style below.
"""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from engine.tasks import miniature

MARGIN, TITLE, CAPTION = 10, 20, 14
WIDEST = 10  # classes side by side
ROOT = Path(__file__).resolve().parents[1]


def examples(name: str, strength: float, rows: int) -> np.ndarray:
    """Render ``rows`` test pictures of every class, uint8 (rows, C, 32, 32, 3).

    Args:
        name: The family.
        strength: Strength of the shift.
        rows: Pictures a class.

    Returns:
        The pictures, channels last.
    """
    count = len(miniature.family(name).classnames)
    painting, labels = miniature.paintings(name, "test", range(rows * count), 0, strength)
    order = np.argsort(labels, kind="stable").reshape(count, rows).T
    return painting.images[order].transpose(0, 1, 3, 4, 2)


def blocks(names: list[str]) -> list[tuple[str, int, int]]:
    """Cut families into runs of at most `WIDEST` classes, as even as they come.

    Args:
        names: The families.

    Returns:
        Family, first class, and the class after the last one.
    """
    found = []
    for name in names:
        count = len(miniature.family(name).classnames)
        runs = -(-count // WIDEST)
        size = -(-count // runs)
        found += [(name, at, min(at + size, count)) for at in range(0, count, size)]
    return found


def draw_block(
    page: Image.Image, at: tuple[int, int], block: tuple[str, int, int], zoom: int, rows: int
) -> None:
    """Draw one run of classes, both styles, into the page at ``at``."""
    name, first, last = block
    one, side, pen = miniature.family(name), miniature.IMAGE_SIZE * zoom, ImageDraw.Draw(page)
    left, top = at
    if first == 0:
        pen.text((left, top), f"{one.title} ({name})", "black")
    for column, label in enumerate(one.classnames[first:last]):
        pen.text((left + column * (side + 2), top + TITLE - 3), label[: side // 6], "dimgray")
    for style, strength in enumerate((0.0, miniature.SHIFT_STRENGTH[name])):
        for row, pictures in enumerate(examples(name, strength, rows)):
            y = top + TITLE + CAPTION + (style * rows + row) * (side + 2)
            for column, picture in enumerate(pictures[first:last]):
                tile = Image.fromarray(picture).resize((side, side), Image.Resampling.NEAREST)
                page.paste(tile, (left + column * (side + 2), y))


def sheet(names: list[str], zoom: int, rows: int) -> Image.Image:
    """Lay families out in two columns.

    Args:
        names: The families.
        zoom: Screen pixels a picture pixel.
        rows: Rows of pictures a style.

    Returns:
        The sheet.
    """
    cut = blocks(names)
    side = miniature.IMAGE_SIZE * zoom + 2
    width, height = WIDEST * side + 2 * MARGIN, TITLE + CAPTION + 2 * rows * side + MARGIN
    half = max(1, len(cut) // 2)
    depth = max(half, len(cut) - half)
    page = Image.new("RGB", (2 * width, depth * height + MARGIN), "white")
    for i, block in enumerate(cut):
        column, row = (0, i) if i < half else (1, i - half)
        at = (MARGIN + column * width, MARGIN + row * height)
        draw_block(page, at, block, zoom, rows)
    return page


def main() -> None:
    """Write the sheet."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--families", nargs="*", default=list(miniature.family_names()))
    parser.add_argument("--zoom", type=int, default=3)
    parser.add_argument("--rows", type=int, default=1)
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "contact_sheet.png")
    options = parser.parse_args()
    sheet(options.families, options.zoom, options.rows).save(options.out, optimize=True)
    print(options.out)


if __name__ == "__main__":
    main()
