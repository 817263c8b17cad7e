"""Numbers as words."""


def percent(fraction: float | None) -> str:
    """Write a fraction as per cent with one decimal; an en dash for None."""
    return "–" if fraction is None else f"{100 * fraction:.1f} %"


def megabytes(size: int) -> str:
    """Write bytes as kB or MB."""
    return f"{size / 1e6:.1f} MB" if size >= 1e6 else f"{size / 1e3:.0f} kB"
