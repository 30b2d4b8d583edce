"""The page and the tables of profiles."""

from __future__ import annotations

import base64
import re
from dataclasses import replace

import pytest
from helpers.evaluation_results import results

from dealias.evaluation.profiles import StoredProfiles
from dealias.metrics.site_profile import Profile
from dealias.report.profiles import SITE_COLUMNS, drawn, profile_figures, profile_tables, render_profiles, site_rows


@pytest.fixture
def profile() -> Profile:
    """Two sites: the second adds more, and has no maximum."""
    found = results().profiles["plain"]
    small = replace(found.sites[0], added=0.12345, periodicity=0.987)
    strided = replace(found.sites[1], kind="strided_conv", grid=(4, 8), maximum=None, periodicity=None, added=0.5)
    return replace(found, sites=[small, strided])


def stored(place: str | None = None, **profiles: Profile) -> StoredProfiles:
    counts = dict.fromkeys(profiles, 3)
    return StoredProfiles({}, {"place": place, "count": counts}, profiles, 7, {"torch": "2.0"})


def test_rows_come_in_the_order_of_what_sites_add(profile: Profile) -> None:
    assert site_rows(profile) == [
        ["features.7", "strided conv", "4x8 px", "0.0100", "-", "0.4000", "0.5000", "-"],
        ["features.3", "max pool", "2 px", "0.0100", "0.0200", "0.4000", "0.1235", "0.99"],
    ]
    (table,) = profile_tables({"net": profile})
    assert table["heading"] == "Sites of net by the shift-variance that they add"
    assert table["rows"] == site_rows(profile)
    assert all(len(row) == len(SITE_COLUMNS) for row in site_rows(profile))


def test_figures_are_drawn_for_both_themes(profile: Profile) -> None:
    for figure in drawn(profile_figures({"net": profile})):
        light, dark = (base64.b64decode(figure[key].partition(",")[2]).decode() for key in ("source", "dark"))
        assert light.count("<path") == dark.count("<path") > 10
        assert "#1c1917" in light
        assert "#1c1917" not in dark
        assert "#f5f5f4" in dark


def test_the_page_begins_with_the_site_that_adds_most(profile: Profile) -> None:
    page = render_profiles(stored("photos", one=profile, other=replace(profile, sites=profile.sites[:1], missed=[])))
    assert (
        "<h1>one: features.7 adds most shift-variance (0.500); other: features.3 adds most shift-variance (0.123).</h1>"
    ) in re.sub(r"\s+", " ", page)
    for said in (
        "one: not profiled, because they are not layers with feature maps: slice.",
        "3 images of photos; seed 7.",
        "torch 2.0.",
    ):
        assert said in page
    assert "other: not profiled" not in page


def test_a_network_without_sites_is_told(profile: Profile) -> None:
    page = render_profiles(stored(net=replace(profile, sites=[])))
    assert "No downsampling site has feature maps." in page
    assert "3 images that packages bring; seed 7." in page
    assert "<img" not in page
