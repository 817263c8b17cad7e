"""Draw the contact sheet of the miniature world: a row of classes a style, for every family."""

import argparse
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

from engine.tasks import miniature

MARGIN, TITLE, CAPTION = 10, 20, 14
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


def sheet(names: list[str], zoom: int, rows: int) -> Image.Image:
    """Lay families out below each other.

    Args:
        names: The families.
        zoom: Screen pixels a picture pixel.
        rows: Rows of pictures a style.

    Returns:
        The sheet.
    """
    side = miniature.IMAGE_SIZE * zoom
    columns = max(len(miniature.family(name).classnames) for name in names)
    height = TITLE + CAPTION + 2 * rows * (side + 2) + MARGIN
    width = columns * (side + 2) + 2 * MARGIN
    page = Image.new("RGB", (width, len(names) * height + MARGIN), "white")
    pen = ImageDraw.Draw(page)
    for block, name in enumerate(names):
        top = MARGIN + block * height
        one = miniature.family(name)
        pen.text((MARGIN, top), f"{one.title} ({name}): broad style above, shifted below", "black")
        for column, label in enumerate(one.classnames):
            pen.text((MARGIN + column * (side + 2), top + TITLE - 3), label[: side // 6], "dimgray")
        top += TITLE + CAPTION
        for style, strength in enumerate((0.0, miniature.SHIFT_STRENGTH[name])):
            for row, pictures in enumerate(examples(name, strength, rows)):
                y = top + (style * rows + row) * (side + 2)
                for column, picture in enumerate(pictures):
                    tile = Image.fromarray(picture).resize((side, side), Image.Resampling.NEAREST)
                    page.paste(tile, (MARGIN + column * (side + 2), y))
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
