"""`dealias profile`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest


def test_sites_are_ranked_by_what_they_add(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], images: Path, tmp_path: Path
) -> None:
    options = ("--images", images, "--count", 2, "--reach", 2, "--output", tmp_path / "out")
    assert run("profile", "dealias:vgg_small,in_chans=3", *options) == 0
    *shown, page = capsys.readouterr().out.splitlines()
    assert page == str(tmp_path / "out" / "report.html")
    stored = json.loads((tmp_path / "out" / "profile.json").read_text())
    (profile,) = stored["profiles"].values()
    added = [site["added"] for site in profile["sites"]]
    assert len(added) == 5
    table = "\n".join(shown)
    assert "added" in table
    assert "maximum" not in table
    ranked = sorted(profile["sites"], key=lambda site: site["added"], reverse=True)
    places = [table.index(site["path"] + " ") for site in ranked]
    assert places == sorted(places)
