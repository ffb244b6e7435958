"""Pixels of picture files as a screen shows them, read within bounds."""

import io
import struct
import zlib

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import BITSPERSAMPLE, PHOTOMETRIC_INTERPRETATION, TiffImageFile

from stclip.data.frames import Picture
from stclip.errors import UserError

# No format of which Pillow runs another program (EPS: Ghostscript).
FORMATS = ("PNG", "JPEG", "BMP", "WEBP", "TIFF")
# What Pillow raises for files that are cut short, damaged or not pictures at all.
BROKEN = (OSError, SyntaxError, ValueError, EOFError, struct.error, zlib.error, OverflowError,
          TypeError, KeyError, IndexError, MemoryError)  # fmt: skip
_ORIENTATION = 0x0112  # of EXIF
_SIDEWAYS = (5, 6, 7, 8)
# Modes that Pillow's convert turns into RGB as they are meant; alpha is left out.
_MODES = ("1", "L", "LA", "P", "PA", "RGB", "RGBA", "RGBX", "CMYK", "YCbCr")


def largest_file(max_pixels: int) -> int:
    """The bytes of the largest file that so many pixels need: 16 bits of four channels each."""
    return 8 * max_pixels + 2**20


def picture_size(data: bytes, where: str, max_pixels: int) -> tuple[int, int]:
    """Width and height as shown, from the header alone.

    Args:
        data: the file's content.
        where: the file, for messages.
        max_pixels: DATALOADER.MAX_PIXELS.

    Raises:
        UserError: it is not a picture of one of the formats, is damaged or too large.
    """
    try:
        picture = _open(data, where, max_pixels)
        width, height = picture.size
        turned = picture.getexif().get(_ORIENTATION) in _SIDEWAYS
    except BROKEN as error:
        raise _broken(where, error) from error
    return (height, width) if turned else (width, height)


def decode_picture(data: bytes, where: str, max_pixels: int) -> Picture:
    """Decode a picture file, turned as its EXIF orientation says.

    Of 16-bit gray values the upper 8 bits are taken, as Pillow does for 16-bit colours.

    Args:
        data: the file's content.
        where: the file, for messages.
        max_pixels: DATALOADER.MAX_PIXELS.

    Returns:
        (h, w, 3) uint8 RGB.

    Raises:
        UserError: as ``picture_size``; or the values have no certain meaning (floats, 32 bits), or
            there are several pictures in the file.
    """
    try:
        picture = _open(data, where, max_pixels)
        count = getattr(picture, "n_frames", 1)
        if picture.format != "MPO" and count > 1:
            raise UserError(f"{where}: {count} pictures in one file; one a file was expected")
        if picture.mode in ("I", "I;16", "I;16B", "I;16L") and _is_16_bit(picture):
            values = np.asarray(ImageOps.exif_transpose(picture))
            gray = (values.astype(np.int64) >> 8).astype(np.uint8)
            return np.repeat(gray[:, :, None], 3, axis=2)
        if picture.mode not in _MODES:
            raise UserError(
                f"{where}: pixel values of kind {picture.mode} (Pillow's name), whose range is not "
                "known; write it with 8 bits a channel"
            )
        return np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    except BROKEN as error:
        raise _broken(where, error) from error


def _open(data: bytes, where: str, max_pixels: int) -> Image.Image:
    try:
        picture = Image.open(io.BytesIO(data), formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise _too_large(where, str(error), max_pixels) from error
    width, height = picture.size
    if width * height > max_pixels:
        raise _too_large(where, f"{width} x {height} pixels", max_pixels)
    return picture


def _is_16_bit(picture: Image.Image) -> bool:
    """Whether gray values are 0 (black) to 65535 (white)."""
    if isinstance(picture, TiffImageFile):
        tags = picture.tag_v2
        return tags.get(BITSPERSAMPLE) == (16,) and tags.get(PHOTOMETRIC_INTERPRETATION) == 1
    return picture.format == "PNG"  # mode I of older Pillows


def _too_large(where: str, found: str, max_pixels: int) -> UserError:
    return UserError(
        f"{where}: {found}; at most {max_pixels} pixels were expected "
        "(DATALOADER.MAX_PIXELS); make it smaller or raise the key"
    )


def _broken(where: str, error: BaseException) -> UserError:
    if isinstance(error, UserError):
        return error
    detail = (
        f"not a picture of the formats {', '.join(FORMATS)}"
        if isinstance(error, UnidentifiedImageError)
        else str(error) or type(error).__name__
    )
    return UserError(
        f"{where}: this picture cannot be decoded ({detail}); is the file cut short? Extract the "
        "frame again"
    )
