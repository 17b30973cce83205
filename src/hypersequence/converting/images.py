"""From the bytes of an image to an array, with Pillow."""

from __future__ import annotations

import io
import operator
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ..errors import ArgumentError, SourceError
from ..schema import Array
from .base import Option, one_of, require, yes_or_no

#: What Pillow may try. Others of its formats start programs (EPS) or are no photographs.
FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "PPM", "GIF", "TIFF")
#: How image files' names end.
IMAGE_ENDINGS = (
    *(".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"),
    *(".ppm", ".pgm", ".pbm", ".pnm"),
)
_EXACT = {"L": "L", "RGB": "RGB", "1": "L", "P": "RGB"}  # Pillow's mode to one that keeps every value
#: What an image can be resized to, 16,384 x 16,384: a slip of the keyboard might ask for more memory than there is.
_MAX_PIXELS = 1 << 28
_ORIENTATION, _BITS_PER_SAMPLE = 0x0112, 0x0102  # tags of EXIF and TIFF
#: Every thread decodes images that take up to so many bytes of memory, two threads those that take more, ...
_MEDIUM_NBYTES = 24 << 20
#: ... and one alone those that take still more, or a few photographs would take a gigabyte.
_LARGE_NBYTES = 64 << 20
# No semaphore, which is made of a condition, and Ctrl-C may leave that taken: loader/threads.py.
_ONE, _OTHER = threading.Lock(), threading.Lock()


def decode_image(
    data: bytes | Path,
    where: str,
    size: tuple[int, int] | None = None,
    crop: bool = False,
    mode: str | None = None,
    *,
    upright: bool = False,
) -> Array:
    """An image as ``uint8``: ``(height, width, 3)``, or ``(height, width)`` if it is grey.

    Args:
        data: The bytes of an image file, or its path.
        where: What messages call it.
        size: ``(height, width)`` to which it is resized. ``None`` keeps its own.
        crop: Whether it keeps its proportions when resized: what sticks out is cut off, the same on both sides.
            ``False`` stretches it.
        mode: ``"RGB"`` or ``"L"`` (grey), to which it is converted. ``None`` keeps its own, and refuses what an array
            of this kind does not hold: transparency, CMYK.
        upright: Whether it is turned as the camera noted beside it. ``False`` gives pixels as they are stored.

    Raises:
        SourceError: It is no image, is damaged or cut off, or has other values than eight bits each.
        MissingPackageError: Pillow is not installed.

    Of several frames the first one comes.
    """
    pillow = require("PIL.Image")
    try:
        with pillow.open(io.BytesIO(data) if isinstance(data, bytes) else data, formats=FORMATS) as image:
            if _is_deep(image):
                raise _too_deep(image, where)
            if size is not None and image.format != "PNG":  # whose notes may be behind the pixels: see _upright()
                lies = upright and _orientation(image) > 4
                # JPEG can leave out detail while decoding. Twice the size is left to work from, as in thumbnail().
                image.draft(None, (2 * size[0], 2 * size[1]) if lies else (2 * size[1], 2 * size[0]))
            make = _upright if upright else _array
            return _in_turn(partial(make, image, where, size, crop, mode), image, size, mode)
    except (SourceError, ArgumentError):
        raise
    except pillow.UnidentifiedImageError:
        raise SourceError(f"{where}: is no image of these formats: {', '.join(FORMATS)}") from None
    except Exception as error:  # on damaged files Pillow raises much: OSError, SyntaxError, ValueError, struct.error
        raise SourceError(f"{where}: cannot be read as an image: {error}") from error


def image_array(
    image: Any, where: str, size: tuple[int, int] | None = None, crop: bool = False, mode: str | None = None
) -> Array:
    """The same for an image that Pillow has open already."""
    return _in_turn(partial(_array, image, where, size, crop, mode), image, size, mode)


def _in_turn(make: Callable[[], Array], image: Any, size: tuple[int, int] | None, mode: str | None) -> Array:
    """Have an image decoded as soon as there is memory for it."""
    # Four bytes a pixel, and as much again for what is made of it, unless that is small.
    nbytes = 4 * image.width * image.height * (1 if size is not None and image.mode == (mode or image.mode) else 2)
    if nbytes > _LARGE_NBYTES:
        with _ONE, _OTHER:
            _give_memory_back()
            return make()
    if nbytes > _MEDIUM_NBYTES:
        with _OTHER if _ONE.locked() else _ONE:
            return make()
    return make()


def _give_memory_back() -> None:
    """Have the system get what was freed: the C library on Linux keeps it, for each thread that decoded an image."""
    import ctypes  # not at import time: few images are so large

    with suppress(AttributeError, TypeError, OSError):  # there is no such function elsewhere
        ctypes.CDLL(None).malloc_trim(0)


def _upright(image: Any, where: str, size: tuple[int, int] | None, crop: bool, mode: str | None) -> Array:
    """An image as a person sees it. To find out how the camera was held, Pillow decodes the whole of a PNG."""
    orientation = _orientation(image)
    if size is not None and orientation > 4:
        size = size[1], size[0]  # it lies on its side until it is turned
    return _turned(_array(image, where, size, crop, mode), orientation)


def _array(image: Any, where: str, size: tuple[int, int] | None, crop: bool, mode: str | None) -> Array:
    if crop and size is None:
        raise ArgumentError("crop needs a size to cut images to")
    wanted = _mode(image, mode, where)
    image.load()  # which may turn a TIFF, and with that changes its size
    return np.asarray(_resized(image if image.mode == wanted else image.convert(wanted), size, crop))


def _is_deep(image: Any) -> bool:
    """Whether a file just opened has colours of more than 8 bits, of which Pillow reads the upper 8 without a word."""
    told: list[Any] = [tile[3] for tile in image.tile]
    if image.format == "TIFF":
        return max(image.tag_v2.get(_BITS_PER_SAMPLE, (1,))) > 8
    if image.format == "PPM":  # with another maximum than 255 that stands here
        return any(not isinstance(each, str) and each[1] > 255 for each in told)
    return image.format == "PNG" and any(str(each).endswith(";16B") for each in told)


def _too_deep(image: Any, where: str) -> SourceError:
    return SourceError(
        f"{where}: an image of {image.mode!r} has more than 8 bits a value, which would be lost; keep such images as "
        "arrays"
    )


def _orientation(image: Any) -> int:
    """How the camera was held: 1 is upright, and the others are those of EXIF."""
    if image.format == "TIFF":
        return 1  # Pillow turns these by itself
    try:
        found = image.getexif().get(_ORIENTATION, 1)
    except Exception:  # the camera's notes are damaged, which the pixels need not be
        return 1
    return found if found in range(1, 9) else 1


def _turned(array: Array, orientation: int) -> Array:
    """An upright view of an image."""
    if orientation > 4:
        array = array.swapaxes(0, 1)
    upside_down, mirrored = orientation in (3, 4, 7, 8), orientation in (2, 3, 6, 7)
    return array[:: -1 if upside_down else 1, :: -1 if mirrored else 1]


def _mode(image: Any, asked: str | None, where: str) -> str:
    """The mode to convert to."""
    if image.mode.startswith(("I", "F")):
        raise _too_deep(image, where)
    if asked is not None:
        return asked
    if image.has_transparency_data or image.mode not in _EXACT:
        kind = "has transparency" if image.has_transparency_data else f"is {image.mode}"
        raise SourceError(f"{where}: the image {kind}; mode='RGB' makes RGB of all images, mode='L' grey ones")
    return _EXACT[image.mode]


def _resized(image: Any, size: tuple[int, int] | None, crop: bool) -> Any:
    if size is None or image.size == size[::-1]:
        return image
    bilinear = require("PIL.Image").Resampling.BILINEAR
    if crop:
        return require("PIL.ImageOps").fit(image, size[::-1], method=bilinear)
    return image.resize(size[::-1], bilinear)


def _parse_size(given: Any) -> tuple[int, int]:
    """From ``224``, ``"224x320"``, ``"224,320"`` or ``(224, 320)``."""
    parts: Sequence[Any]
    try:
        parts = [operator.index(given)]  # an integer, also one of NumPy's
    except TypeError:
        parts = given.lower().replace("x", ",").split(",") if isinstance(given, str) else given
    numbers = [int(part) if isinstance(part, str) else operator.index(part) for part in parts]
    if len(numbers) not in (1, 2) or min(numbers) < 1:
        raise ValueError("is no size")
    if numbers[0] * numbers[-1] > _MAX_PIXELS:
        raise ValueError(f"an image may have {_MAX_PIXELS:,} pixels at most")
    return numbers[0], numbers[-1]


def _parse_mode(given: Any) -> str | None:
    return {"none": None, "rgb": "RGB", "l": "L"}[one_of("none", "rgb", "l")(given)]


#: ``size``, ``crop`` and ``mode`` of :func:`decode_image`, for a format that reads images.
IMAGE_OPTIONS = (
    Option("size", _parse_size, "resize images to height and width: 224, or 224x320 (by default they keep their size)"),
    Option(
        "crop",
        yes_or_no,
        "keep proportions and cut off what sticks out, where size= is given (default: no)",
        False,
    ),
    Option("mode", _parse_mode, "make all images RGB, or L: grey (by default they stay what they are)"),
)
