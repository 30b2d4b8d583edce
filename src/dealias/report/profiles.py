"""The report of profiles: how much shift-variance each downsampling site adds."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TYPE_CHECKING, TypeAlias

from dealias.evaluation.profiles import StoredProfiles
from dealias.metrics.site_profile import Profile
from dealias.report.page import Table, render_page, vector_source
from dealias.report.plots import plot_bars, plot_site_maps
from dealias.report.theme import Theme

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Plot: TypeAlias = "tuple[str, str, str, Callable[[Theme], Figure]]"
"""Heading, text, alternative text, and the function that draws the plot for a theme."""

SITE_COLUMNS = ("site", "kind", "grid", "distance before", "maximum", "after", "added", "periodicity")


def profile_figures(profiles: Mapping[str, Profile]) -> list[Plot]:
    """Heat maps of the sites, and bars of the shift-variance that each adds."""
    return [
        (
            "Where the aliasing enters",
            "Internal feature distance over circular shifts at the downsampling sites: how far F(Shift(X)) is from "
            "Shift(F(X)). Dark is shift-equivariant. Max-pooling has two maps: its maximum, taken at every pixel, and "
            "its subsampling, which adds the stride's grid unless a low-pass filter comes first.",
            "Heat maps of the internal feature distance at the downsampling sites.",
            lambda theme: plot_site_maps(profiles, theme=theme),
        ),
        (
            "How much each site adds",
            "Mean distance behind each site minus that in front of it. Look first at the longest bars.",
            "Bars of the feature distance that each downsampling site adds.",
            lambda theme: plot_bars(
                {label: {site.path: site.added for site in profile.sites} for label, profile in profiles.items()},
                "internal feature distance added",
                theme=theme,
            ),
        ),
    ]


def drawn(figures: Iterable[Plot]) -> list[dict[str, str]]:
    """Draw the figures for `render_page`."""
    return [
        {
            "heading": heading,
            "text": text,
            "alt": alt,
            "source": vector_source(plot("light")),
            "dark": vector_source(plot("dark")),
        }
        for heading, text, alt, plot in figures
    ]


def site_rows(profile: Profile) -> list[list[str]]:
    """The figures of each site under `SITE_COLUMNS`, in descending order of the shift-variance that they add."""
    return [
        [
            site.path,
            site.kind.replace("_", " "),
            f"{'x'.join(map(str, dict.fromkeys(site.grid)))} px",
            *(
                "-" if value is None else f"{value:.4f}"
                for value in (site.before, site.maximum, site.after, site.added)
            ),
            "-" if site.periodicity is None else f"{site.periodicity:.2f}",
        ]
        for site in profile.ranked()
    ]


def profile_tables(profiles: Mapping[str, Profile]) -> list[Table]:
    """A table of the sites of each network."""
    return [
        {
            "heading": f"Sites of {label} by the shift-variance that they add",
            "text": "Internal feature distance, means over the shifts. Periodicity 1: none at shifts by whole steps of "
            "the grid.",
            "columns": SITE_COLUMNS,
            "rows": site_rows(profile),
        }
        for label, profile in profiles.items()
    ]


def render_profiles(stored: StoredProfiles) -> str:
    """The report of `dealias profile`."""
    measured = {label: profile for label, profile in stored.profiles.items() if profile.sites}
    findings = [
        f"{label}: {profile.ranked()[0].path} adds most shift-variance ({profile.ranked()[0].added:.3f})"
        for label, profile in measured.items()
    ]
    return render_page(
        title=f"dealias profile of {', '.join(stored.profiles)}",
        finding=f"{'; '.join(findings)}." if findings else "No downsampling site has feature maps.",
        figures=drawn(profile_figures(measured) if measured else []),
        tables=profile_tables(measured),
        notes=[
            *(
                f"{label}: not profiled, because they are not layers with feature maps: {', '.join(profile.missed)}."
                for label, profile in stored.profiles.items()
                if profile.missed
            ),
            f"{next(iter(stored.images['count'].values()))} images"
            + (f" of {stored.images['place']}" if stored.images["place"] else " that packages bring")
            + f"; seed {stored.seed}. All figures are in profile.json and profile.csv beside this page.",
            ", ".join(f"{name} {version}" for name, version in stored.versions.items()) + ".",
        ],
    )
