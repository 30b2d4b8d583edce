"""The report in a browser: no error, the slider moves, both widths and themes."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers import sweep
from helpers.browser import CHROMIUM, drive
from helpers.evaluation_results import results, slides

from dealias.report.evaluation import render_evaluation

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")

STEPS = """
  const range = document.getElementById("shift"), picture = document.querySelector(".window");
  const state = () => [range.getAttribute("aria-valuetext"), picture.style.backgroundPosition,
    document.querySelector("[data-curve]").getAttribute("cx")];
  const before = state();
  range.value = 3;
  range.dispatchEvent(new Event("input"));
  const after = state(), shown = [...document.images].map((image) => image.naturalWidth > 0);
  document.querySelectorAll(".tabs button")[1].click();
  const found = {
    moved: before.every((value, index) => value !== after[index]),
    value: after[0],
    second: picture.getAttribute("aria-label"),
    pressed: [...document.querySelectorAll(".tabs button")].map((each) => each.getAttribute("aria-pressed")),
    focusable: [...document.querySelectorAll("button, input")].every((each) => each.tabIndex === 0),
    pictures: shown.length > 0 && shown.every(Boolean),
  };
"""


@pytest.mark.parametrize("width", sweep.only((500,), (1000, 500)))
def test_the_slider_moves_without_an_error(tmp_path: Path, width: int) -> None:
    assert drive(tmp_path / "report.html", render_evaluation(results(), slides()), STEPS, width) == {
        "moved": True,
        "value": "3 pixels, P(cat <b>) plain 40%, blurred 90%",
        "second": "two.png",
        "pressed": ["false", "true"],
        "focusable": True,
        "pictures": True,
        "wide": False,
        "problems": [],
    }
