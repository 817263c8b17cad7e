"""Elementary functions built from + - * / floor and sqrt alone, so that every machine agrees.

The trigonometric and exponential functions of numpy differ in the last bit between processors;
the operations used here are correctly rounded by IEEE 754, so an image is the same byte for byte.
"""

import numpy as np

Array = np.ndarray


def sin_turns(turns):
    """Sine of an angle given in turns: a parabola with one correction, error below 0.002.

    Args:
        turns: Angle in turns (1 is a full circle), a float or a float32 array.

    Returns:
        Values in [-1, 1], of the same kind and shape.
    """
    turns = turns - np.floor(turns + 0.5)
    first = turns * (8.0 - 16.0 * np.abs(turns))
    return first * (0.775 + 0.225 * np.abs(first))


def cos_turns(turns):
    """Return the cosine of an angle given in turns; see `sin_turns`."""
    return sin_turns(turns + 0.25)


def lerp(strength: float, broad, shifted):
    """Go from the broad value (strength 0, exactly) towards the shifted one (strength 1).

    Args:
        strength: The strength of the shift.
        broad: Value in the broad style.
        shifted: Value in the shifted style, broadcastable with ``broad``.

    Returns:
        ``broad + strength * (shifted - broad)``.
    """
    return broad + strength * (shifted - broad)


def ramp(value: Array) -> Array:
    """Return the value clipped to [0, 1]."""
    return np.minimum(np.maximum(value, 0.0), 1.0)


def column(values: Array) -> Array:
    """Return one value an image, shape (N,), as (N, 1), to meet pixels (N, 1024)."""
    return values[:, None]
