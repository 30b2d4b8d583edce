"""Write the live report of the front page, the demo's slider: python docs/live.py build/site/live.html."""

import sys
from pathlib import Path

from dealias.demo import PHOTO_NETWORK, slide_photos
from dealias.files import write_whole
from dealias.report import render_page

COUNT = 6


def main(path: str) -> None:
    """Slide the photographs and write the page: they and its script are inside it."""
    slides = slide_photos(limit=None, advance=lambda done, total: None)[:COUNT]
    page = render_page(
        title="",
        finding="Move the window over the photograph: the probability of its class jumps",
        photos=("", slides),
        figures=[],
        notes=[f"{PHOTO_NETWORK}, trained on ImageNet, as it is. Photographs: scikit-image. Made by docs/live.py."],
    )
    write_whole(Path(path), page)


if __name__ == "__main__":
    main(sys.argv[1])
