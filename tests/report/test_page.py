import json
import re
from html.parser import HTMLParser

import numpy as np

from dealias.data.pictures import picture_url
from dealias.evaluation.results import Slide
from dealias.report import render_page


class _Tags(HTMLParser):
    def __init__(self) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


HOSTILE = "</script><script>alert(1)</script>"


def _page() -> str:
    source = picture_url(np.zeros((3, 8, 8), np.uint8))
    photo = Slide(HOSTILE, HOSTILE, [0, 1], {"network": [0.2, 0.7]}, crop=6, size=8, source=source)
    return render_page(
        title="t",
        finding=f"finding {HOSTILE}",
        photos=("h", [photo]),
        figures=[{"heading": "f", "text": "x", "source": source, "alt": "a"}],
        tables=[{"heading": HOSTILE, "columns": ["", "baseline"], "rows": [[HOSTILE, "1%"]]}],
        notes=[HOSTILE],
    )


def test_the_page_holds_everything_it_shows():
    parser = _Tags()
    parser.feed(_page())
    for tag, attributes in parser.tags:
        for name in ("src", "href"):
            value = attributes.get(name)
            assert value is None or value.startswith("data:"), (tag, value)
    assert ("meta", {"name": "viewport", "content": "width=device-width, initial-scale=1"}) in parser.tags


def test_names_are_escaped_everywhere():
    page = _page()
    assert HOSTILE not in page
    parser = _Tags()
    parser.feed(page)
    assert sum(tag == "script" for tag, _ in parser.tags) == 2
    data = re.search(r'<script type="application/json" id="photos">(.*?)</script>', page, re.S)
    assert data is not None
    assert json.loads(data[1])[0]["name"] == HOSTILE
