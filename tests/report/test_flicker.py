"""The page of a flicker measurement: it plays to the end within its size, and never calls nothing steady."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from helpers.browser import CHROMIUM, drive
from helpers.flickering import FRAMES, network, pans
from helpers.networks_of_tasks import SquareDetector

from dealias.evaluation.flicker import FILES, measure_flicker
from dealias.files import OutputFolder
from dealias.report import flicker as report
from dealias.report.answers import draw_answer

STEPS = """
  const card = document.querySelector(".through-time"), range = card.querySelector("input");
  const state = () => [range.getAttribute("aria-valuetext"), card.querySelector("img").src];
  const before = state();
  range.value = range.max;
  range.dispatchEvent(new Event("input"));
  const after = state(), play = card.querySelector("button"), names = [play.getAttribute("aria-label")];
  for (let click = 0; click < 2; click++) { play.click(); names.push(play.getAttribute("aria-label")); }
  const found = {moved: before.every((value, index) => value !== after[index]), last: after[0], names};
"""


def page(path: Path, models: list[Any]) -> str:
    """The page of networks on a pan."""
    networks = [network(model, f"network {number}") for number, model in enumerate(models)]
    path.mkdir(exist_ok=True)
    clips = [*pans(path / "photos", count=1)]
    with OutputFolder(path / "run", "flicker", writes=(*FILES, report.PAGE)) as folder:
        measure_flicker(networks, clips, folder, {}, draw=draw_answer)
        return report.write_flicker_report(folder, clips).read_text()


def test_frames_of_a_page_that_is_full_are_spread_to_the_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    labels = re.compile(r"0\.png, frame (\d+)")
    whole = page(tmp_path / "whole", [SquareDetector()])
    assert [*map(int, labels.findall(whole))] == [*range(FRAMES)]
    pictures = sum(len(text) * 3 // 4 for text in re.findall(r"data:image/jpeg;base64,([^\"]+)", whole))
    monkeypatch.setattr(report, "MOST_BYTES", pictures * 3 // 5)
    assert [*map(int, labels.findall(page(tmp_path / "half", [SquareDetector()])))] == [*range(0, FRAMES, 2)]
    monkeypatch.setattr(report, "MOST_BYTES", 1)
    assert labels.findall(page(tmp_path / "one", [SquareDetector()])) == ["0"]


def test_a_network_that_finds_nothing_is_not_called_steady(tmp_path: Path) -> None:
    text = page(tmp_path, [SquareDetector(drop=1)])
    assert "<h1>No network found a box that could be compared with the next frame" in text
    found = page(tmp_path / "other", [SquareDetector(drop=1), SquareDetector()])
    assert "<h1>Boxes found again when the camera moves by one step: - for network 0; 100.0%" in found


@pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed")
@pytest.mark.parametrize("width", [1000, 500])
def test_the_slider_through_time_moves_in_a_browser(tmp_path: Path, width: int) -> None:
    html = page(tmp_path, [SquareDetector(), SquareDetector(step=2)])
    assert drive(tmp_path / "report.html", html, STEPS, width) == {
        "moved": True,
        "last": f"0.png, frame {FRAMES - 1}",
        "names": ["play", "pause", "play"],
        "wide": False,
        "problems": [],
    }
