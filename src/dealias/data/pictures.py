"""Picture files, decoded and encoded by Pillow."""

from __future__ import annotations

import base64
import io
import struct
import warnings
from os import PathLike
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from dealias.errors import InputError
from dealias.optional import require

EXTENSIONS = (".jpg", ".jpeg", ".png", ".ppm", ".bmp", ".pgm", ".tif", ".tiff", ".webp", ".gif")


def read_picture(file: str | PathLike[str] | BinaryIO) -> Any:
    """The image of a file as a Pillow picture, RGB with 8 bits.

    Grayscale, palette, CMYK and 16-bit images become RGB; transparent pixels become white. An animation gives its first
    frame. The orientation in the EXIF data is applied.

    Raises:
        InputError: the file is not a complete image, or cannot be read.
        MissingExtraError: Pillow is not installed.
    """
    image_module, operations = require("PIL.Image"), require("PIL.ImageOps")
    # Pillow's decoders raise these on broken files, and DecompressionBombError for absurd sizes
    broken = (OSError, SyntaxError, ValueError, LookupError, struct.error, image_module.DecompressionBombError)
    try:
        with warnings.catch_warnings(), image_module.open(file) as opened:
            warnings.simplefilter("ignore")  # Pillow warns of oddities and decodes the file all the same
            return _to_rgb(operations.exif_transpose(opened), image_module)
    except image_module.UnidentifiedImageError:
        raise InputError("not an image format that Pillow knows") from None
    except broken as error:
        raise InputError(str(error) or type(error).__name__) from None


def _to_rgb(image: Any, image_module: Any) -> Any:
    if image.mode.startswith("I"):  # 16 bits; Pillow would clip them
        image = image.convert("F").point(lambda value: value * (1 / 257)).convert("L")
    if image.mode in ("RGBA", "LA", "PA", "RGBa", "La") or "transparency" in image.info:
        image = image.convert("RGBA")
        image = image_module.alpha_composite(image_module.new("RGBA", image.size, "white"), image)
    return image.convert("RGB")


def picture_url(pixels: npt.NDArray[np.uint8]) -> str:
    """Bytes (1 or 3, H, W) as a `data:` URL of a JPEG."""
    buffer = io.BytesIO()
    colours = np.broadcast_to(pixels, (3, *pixels.shape[1:])).transpose(1, 2, 0).copy()
    require("PIL.Image").fromarray(colours).save(buffer, format="JPEG", quality=88)
    return f"data:image/jpeg;base64,{base64.b64encode(buffer.getvalue()).decode()}"
