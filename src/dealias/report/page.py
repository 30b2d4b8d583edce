"""The report: one self-contained HTML page."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from importlib import resources
from typing import TYPE_CHECKING, Any

from dealias.errors import require

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from PIL.Image import Image


def picture_bytes(picture: Figure | Image) -> bytes:
    """A Matplotlib figure as PNG, or a Pillow image as JPEG."""
    buffer = io.BytesIO()
    if hasattr(picture, "savefig"):
        picture.savefig(buffer, format="png", dpi=180, facecolor="white")
    else:
        picture.save(buffer, format="JPEG", quality=88)
    return buffer.getvalue()


def picture_source(picture: bytes) -> str:
    """A `data:` URL of a PNG or JPEG."""
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def render_page(
    *,
    title: str,
    finding: str,
    photos_heading: str,
    photos: Sequence[Mapping[str, Any]],
    figures: Sequence[Mapping[str, str]],
    table: Mapping[str, Sequence[Sequence[str]] | Sequence[str]],
    notes: Sequence[str],
) -> str:
    """The report as HTML with everything in it: styles, script and pictures.

    Args:
        title: of the page.
        finding: the result in one sentence; the page opens with it.
        photos_heading: the heading over the shift slider.
        photos: for the shift slider: `name`, `label`, `shifts`, `curves` (name to probabilities), `crop` and `source`
            (a square picture as data URL, whose side is `size` pixels).
        figures: `heading`, `text`, `source` (data URL) and `alt` of each picture.
        table: `columns` and `rows` of ready strings.
        notes: paragraphs on how it was measured.
    """
    jinja2 = require("jinja2", "report")
    template = resources.files("dealias.report").joinpath("templates/report.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    data = json.dumps([dict(photo) for photo in photos]).replace("<", "\\u003c")
    html: str = environment.from_string(template).render(
        title=title,
        finding=finding,
        photos_heading=photos_heading,
        photos=photos,
        photos_json=data,
        figures=figures,
        table=table,
        notes=notes,
    )
    return html
