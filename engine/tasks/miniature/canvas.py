"""From a pose and distances to pixels: placing, painting, lighting and developing a picture.

Pictures in the making are float32 of shape (N, 3, 1024), planar, values in [0, 1]; masks and
distances are (N, 1024). Every step works pixel by pixel, so no image depends on its batch.
"""

from dataclasses import dataclass

import numpy as np

from .draws import Draws, image_keys
from .elementary import Array, column, cos_turns, ramp, sin_turns

IMAGE_SIZE = 32
_TICKS = ((np.arange(IMAGE_SIZE, dtype=np.float32) + 0.5) * (2.0 / IMAGE_SIZE) - 1.0).astype(
    np.float32
)
PIXEL_Y, PIXEL_X = (axis.ravel()[None, :] for axis in np.meshgrid(_TICKS, _TICKS, indexing="ij"))
PIXELS_A_UNIT = IMAGE_SIZE / 2.0  # a picture runs from -1 to 1


@dataclass
class Pose:
    """Where and how a template lies in the picture; one float32 value an image, each of shape (N,).

    Attributes:
        x: Centre, -1 left to 1 right.
        y: Centre, -1 top to 1 bottom.
        scale: Picture units a template unit.
        aspect: Width over height, against the template's.
        rotation: Turns, clockwise.
        slant: Shear; positive leans to the right.
        wave: Amplitude of a sideways wave, in template units.
        phase: Phase of that wave, in turns.
        flip: 1, or -1 for a mirror image.
    """

    x: Array
    y: Array
    scale: Array
    aspect: Array
    rotation: Array
    slant: Array
    wave: Array
    phase: Array
    flip: Array


@dataclass
class Light:
    """How a picture is lit and developed; arrays of shape (N,) but ``tint`` (N, 3).

    Attributes:
        slope: Change of brightness from one side to the other, a fraction.
        angle: Direction of that change, turns.
        gain: Brightness, a factor.
        lift: Brightness, a summand.
        tint: Factors of red, green and blue.
        blur: Share of a 3 x 3 blur, 0 to 1.
        motion: Share of a 5-pixel horizontal blur, 0 to 1.
        noise: Half-width of the pixel noise.
    """

    slope: Array
    angle: Array
    gain: Array
    lift: Array
    tint: Array
    blur: Array
    motion: Array
    noise: Array


def broad_pose(draws: Draws, low: float = 0.58, high: float = 0.92, flips: bool = False) -> Pose:
    """Return the pose of a figure in the broad style; the figure stays inside the picture."""
    scale = draws.uniform("scale", low, high)
    room = np.minimum(np.maximum(1.0 - 1.06 * scale, 0.0), 0.34)
    mirrored = draws.chance("flip", 0.5) if flips else np.zeros(len(draws), dtype=bool)
    return Pose(
        x=draws.uniform("x", -1.0, 1.0) * room,
        y=draws.uniform("y", -1.0, 1.0) * room,
        scale=scale,
        aspect=draws.uniform("aspect", 0.85, 1.18),
        rotation=draws.bell("rotation", 0.0, 0.05),
        slant=draws.bell("slant", 0.0, 0.2),
        wave=draws.bell("wave", 0.0, 0.06),
        phase=draws.uniform("phase"),
        flip=np.where(mirrored, np.float32(-1.0), np.float32(1.0)),
    )


def broad_light(draws: Draws) -> Light:
    """Return the light of the broad style."""
    n = len(draws)
    soft = draws.uniform("blur", -0.6, 0.6)
    return Light(
        slope=draws.uniform("slope", 0.0, 0.25),
        angle=draws.uniform("angle"),
        gain=draws.uniform("gain", 0.8, 1.08),
        lift=draws.bell("lift", 0.0, 0.06),
        tint=np.stack([draws.bell(f"tint/{c}", 1.0, 0.06) for c in "rgb"], axis=1),
        blur=np.maximum(soft, 0.0),
        motion=np.zeros(n, dtype=np.float32),
        noise=draws.uniform("noise", 0.0, 0.04),
    )


def place(pose: Pose) -> tuple[Array, Array]:
    """Map every pixel into the template's coordinates.

    Args:
        pose: The pose of N images.

    Returns:
        u and v, float32, each (N, 1024).
    """
    c, s = cos_turns(pose.rotation), sin_turns(pose.rotation)
    root = np.sqrt(pose.aspect)
    wide, tall = pose.scale * root * pose.flip, pose.scale / root
    x, y = PIXEL_X - column(pose.x), PIXEL_Y - column(pose.y)
    v = column(c / tall) * y - column(s / tall) * x
    u = column(c / wide) * x + column(s / wide) * y
    u += column(pose.slant) * v
    if pose.wave.any():
        u += column(pose.wave) * sin_turns(0.5 * v + column(pose.phase))
    return u, v


def coverage(distance: Array, scale: Array) -> Array:
    """Return a distance in template units into the covered share of each pixel."""
    return ramp(0.5 - distance * column(scale * np.float32(PIXELS_A_UNIT)))


def paint(picture: Array, colour: Array, cover: Array) -> None:
    """Lay a colour (N, 3) over the picture where ``cover`` (N, 1024) says, in place."""
    picture += cover[:, None, :] * (colour[:, :, None] - picture)


def relight(picture: Array, light: Light) -> None:
    """Multiply by a gradient, a gain and a tint, and add the lift, in place."""
    slope = column(light.slope * light.gain)
    shade = column(cos_turns(light.angle)) * PIXEL_X + column(sin_turns(light.angle)) * PIXEL_Y
    shade *= slope
    shade += column(light.gain)
    picture *= light.tint[:, :, None]
    picture *= shade[:, None, :]
    picture += light.lift[:, None, None]


def _smear(picture: Array, share: Array, axis: int, weights: tuple[float, ...]) -> Array:
    """Return pictures (N, 3, 32, 32) blurred along one axis; the edge pixels repeat."""
    reach = len(weights)
    pad = [(0, 0)] * 4
    pad[axis] = (reach, reach)
    padded = np.pad(picture, pad, mode="edge")

    def shifted(by: int) -> Array:
        window = [slice(None)] * 4
        window[axis] = slice(reach + by, reach + by + IMAGE_SIZE)
        return padded[tuple(window)]

    total = (1.0 - 2.0 * sum(weights)) * picture
    for by, weight in enumerate(weights, start=1):
        total += weight * (shifted(by) + shifted(-by))
    return picture + share[:, None, None, None] * (total - picture)


def _noise_bank() -> Array:
    """Return white noise in [-1, 1): room for a window of 1024 at any of 4096 places."""
    words = image_keys(np.arange(5120), "noise")
    return (words >> np.uint64(40)).astype(np.float32) * np.float32(2.0**-23) - 1.0


NOISE = _noise_bank()


def develop(picture: Array, light: Light, draws: Draws) -> Array:
    """Light, blur, roughen and round a picture.

    Args:
        picture: float32 (N, 3, 1024); overwritten.
        light: How.
        draws: Random numbers of the N images.

    Returns:
        uint8 (N, 3, 32, 32).
    """
    relight(picture, light)
    picture = picture.reshape(-1, 3, IMAGE_SIZE, IMAGE_SIZE)
    if light.blur.any():
        picture = _smear(picture, light.blur, 2, (0.25,))
        picture = _smear(picture, light.blur, 3, (0.25,))
    if light.motion.any():
        picture = _smear(picture, light.motion, 3, (0.2, 0.2))
    picture = picture.reshape(-1, 3, IMAGE_SIZE * IMAGE_SIZE)
    start = draws.integer("noise window", len(NOISE) - IMAGE_SIZE * IMAGE_SIZE)
    window = NOISE.take(start[:, None] + np.arange(IMAGE_SIZE * IMAGE_SIZE))
    window *= column(light.noise)
    picture += window[:, None, :]
    picture = np.rint(ramp(picture) * np.float32(255.0)).astype(np.uint8)
    return picture.reshape(-1, 3, IMAGE_SIZE, IMAGE_SIZE)
