"""Write a report as one self-contained HTML page."""

from __future__ import annotations

import base64
import io
import json
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from importlib import resources
from typing import TYPE_CHECKING, Any, TypeAlias

from dealias.optional import require
from dealias.report.theme import DARK_SERIES_COLORS, SERIES_COLORS

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from dealias.evaluation.results import Slide

Table: TypeAlias = Mapping[str, Sequence[Sequence[str]] | Sequence[str] | str]


def vector_source(figure: Figure) -> str:
    """The `data:` URL of a Matplotlib figure as SVG, without background and with letters as curves."""
    import matplotlib

    buffer = io.BytesIO()
    # no date and fixed names: the same figure gives the same bytes
    with matplotlib.rc_context({"svg.fonttype": "path", "svg.hashsalt": "dealias"}):
        figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None})
    return f"data:image/svg+xml;base64,{base64.b64encode(buffer.getvalue()).decode()}"


def picture_bytes(figure: Figure) -> bytes:
    """The PNG of a Matplotlib figure."""
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", dpi=180, facecolor="white")
    return buffer.getvalue()


def picture_source(picture: bytes) -> str:
    """The `data:` URL of a PNG or JPEG."""
    kind = "png" if picture.startswith(b"\x89PNG") else "jpeg"
    return f"data:image/{kind};base64,{base64.b64encode(picture).decode()}"


def render_page(
    *,
    title: str,
    finding: str,
    photos: tuple[str, Sequence[Slide]] = ("", ()),
    figures: Sequence[Mapping[str, str]],
    notes: Sequence[str],
    summary: Table | None = None,
    tables: Sequence[Table] = (),
    frames: Mapping[str, Any] | None = None,
) -> str:
    """The report as HTML, with styles, script and pictures inside.

    Args:
        title: title of the page.
        finding: the result in one sentence, at the top of the page.
        photos: heading of the shift slider, and its slides.
        figures: figures, each with `heading`, `text`, `source` (data URL), `alt` and perhaps `dark`, the source for
            dark pages.
        notes: paragraphs on how the results were measured.
        summary: table in front of the figures: `columns` and `rows` of strings.
        tables: tables after the figures, each with `heading`, `columns`, `rows` and perhaps `text`.
        frames: of the slider through time: `names` of the networks, and `frames`, each with `label` and `sources`, a
            data URL for each network.
    """
    jinja2 = require("jinja2")
    template = resources.files("dealias.report").joinpath("templates/report.html").read_text(encoding="utf-8")
    environment = jinja2.Environment(autoescape=True, trim_blocks=True, undefined=jinja2.StrictUndefined)
    heading, slides = photos
    html: str = environment.from_string(template).render(
        title=title,
        finding=finding,
        photos_heading=heading,
        photos=slides,
        photos_json=json.dumps([asdict(slide) for slide in slides]).replace("<", "\\u003c"),
        figures=figures,
        summary=summary,
        tables=tables,
        frames=frames if frames and frames["frames"] else None,
        frames_json=json.dumps(frames).replace("<", "\\u003c"),
        colors={"light": SERIES_COLORS, "dark": DARK_SERIES_COLORS},
        notes=notes,
    )
    return html
