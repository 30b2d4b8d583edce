"""The report of an evaluation, from what its `results.json` and `slides.json` hold."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from dealias.errors import InputError
from dealias.files import write_whole
from dealias.profile import Profile
from dealias.report.comparisons import (
    plot_accuracy_consistency,
    plot_bars,
    plot_mean_probability,
    plot_severities,
    plot_site_maps,
)
from dealias.report.figures import Theme
from dealias.report.page import render_page, vector_source
from dealias.report.summary import MetricText, format_share

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Plot: TypeAlias = "tuple[str, str, str, Callable[[Theme], Figure]]"
"""Heading, text, alternative text, and the plot for pages of either theme."""

_MODES = {
    "crop": "two random windows of one image (Zhang 2019)",
    "circular": "two random circular shifts of one image",
    "fractional": "two random circular shifts of one image by fractions of a pixel",
    "zero_fill": "two small random shifts of one image that move zeros in at the border",
    "diagonal": "two neighbouring windows along the diagonal of one image",
    "grid": "the window in the middle and another on the grid",
}
METRICS = {
    "accuracy": MetricText("accuracy", "share of images with the right top-1 class."),
    "top5_accuracy": MetricText("top-5 accuracy", "share of images with the right class among the first five."),
    **{
        f"{mode}_{kind}": MetricText(f"{mode.replace('_', '-')} {name}", definition.format(pairs=pairs))
        for mode, pairs in _MODES.items()
        for kind, name, definition in (
            ("consistency", "consistency", "share of pairs with the same top-1 class: {pairs}."),
            ("unanimity", "k-way agreement", "share of images with the same top-1 class in all those views."),
            (
                "correct_consistency",
                "consistency where right",
                "of the pairs with at least one right prediction, the share with the same.",
            ),
        )
    },
    "one_pixel_flip_probability": MetricText(
        "one-pixel flip probability",
        "share of pairs of windows one pixel apart with another top-1 class (Azulay and Weiss 2019); less is better.",
    ),
    "worst_case_accuracy": MetricText(
        "worst-case accuracy", "share of images right in every window of the grid (Engstrom et al. 2019)."
    ),
    "probability_variation": MetricText(
        "variation of P(correct)",
        "mean change of P(correct class) from one diagonal shift to the next; less is better.",
        share=False,
    ),
    "mean_corruption_error": MetricText(
        "mean corruption error", "ImageNet-C, mean error over corruptions and severities; less is better."
    ),
    "mce": MetricText("mCE", "the same, each corruption divided by AlexNet's error; less is better."),
    "mean_flip_rate": MetricText(
        "mean flip rate", "ImageNet-P, share of neighbouring frames with another top-1 class; less is better."
    ),
    "mean_t5d": MetricText(
        "mean T5D", "by how much the five leading classes change places, 0 to 15; less is better.", share=False
    ),
    "mfr": MetricText("mFR", "flip rates divided by those of the network given for it; less is better."),
    "mt5d": MetricText("mT5D", "T5Ds divided by those of the network given for it; less is better."),
}


def format_figure(key: str, figure: Mapping[str, Any] | None, *, signed: bool = False) -> str:
    """A figure of that metric with its interval, in percent where it is a share.

    >>> format_figure("accuracy", {"value": 0.5, "interval": [0.4, 0.6]})
    '50.0% (40.0 to 60.0)'
    """
    if figure is None:
        return "not measured"
    sign = "+" if signed else ""
    scale, digits, unit = (100, 1, "" if signed else "%") if METRICS[key].share else (1, 4, "")
    shown = f"{scale * figure['value']:{sign}.{digits}f}{unit}"
    if not figure["interval"]:
        return shown
    low, high = (f"{scale * end:{sign}.{digits}f}" for end in figure["interval"])
    return f"{shown} ({low} to {high})"


def evaluation_rows(results: Mapping[str, Any]) -> list[list[str]]:
    """A row for each metric that a network has: its name, each network's figure, and how far it is from the first."""
    labels = list(results["metrics"])
    rows = []
    for key, text in METRICS.items():
        figures = [results["metrics"][label].get(key) for label in labels]
        if not any(figures):
            continue
        row = [text.name, format_figure(key, figures[0])]
        for label, figure in zip(labels[1:], figures[1:], strict=True):
            difference = results["differences"][label].get(key)
            change = f"; {format_figure(key, difference, signed=True)}" if difference else ""
            row.append(format_figure(key, figure) + change)
        rows.append(row)
    return rows


def consistency_key(figures: Mapping[str, Any]) -> str | None:
    """The form of consistency that stands for the others: windows', else circular shifts'."""
    return next((key for key in ("crop_consistency", "circular_consistency") if key in figures), None)


def evaluation_finding(results: Mapping[str, Any]) -> str:
    """The result in a sentence."""
    baseline = results["baseline"]
    figures = results["metrics"][baseline]
    key = consistency_key(figures) or next(iter(figures), None)
    if key is None:
        return f"{baseline} was measured; see below."
    name = METRICS[key].name
    found = f"{baseline}: {name} {_plain(key, figures[key])} on {figures[key]['images']:,} images"
    others = []
    for label, each in results["differences"].items():
        if key not in each:
            continue
        low, high = each[key]["interval"] or (-1.0, 1.0)
        verdict = "" if low > 0 or high < 0 else ", not told apart by this many images"
        others.append(f"{label} {_plain(key, results['metrics'][label][key])}{verdict}")
    return f"{'; '.join([found, *others])}."


def _plain(key: str, figure: Mapping[str, Any]) -> str:
    return format_share(figure["value"]) if METRICS[key].share else f"{figure['value']:.4f}"


def evaluation_figures(results: Mapping[str, Any]) -> list[Plot]:
    """Heading, text, alternative text and plot of every figure for which there are results."""
    metrics = results["metrics"]
    found: list[Plot] = []
    key = consistency_key(metrics[results["baseline"]])
    points = {
        label: {"accuracy": figures["accuracy"], "consistency": figures[key]}
        for label, figures in metrics.items()
        if key is not None and "accuracy" in figures and key in figures
    }
    if points and key is not None:
        published = key == "crop_consistency"
        text = f"Up and to the right is better. Consistency: {METRICS[key].definition}"
        if published:
            text += " In grey the paper's networks on ImageNet: compare where your images are ImageNet's too."
        found.append(
            (
                "Accuracy against consistency",
                text,
                "Scatter plot of accuracy against consistency.",
                lambda theme: plot_accuracy_consistency(points, published=published, theme=theme),
            )
        )
    if results["curves"]:
        found.append(
            (
                "P(correct) along the diagonal",
                "Mean over all images at each offset of the window. Single images vary far more: see the slider.",
                "Line plot of the mean probability of the correct class against the shift.",
                lambda theme: plot_mean_probability(results["curves"], theme=theme),
            )
        )
    profiles = {label: Profile.from_json(stored) for label, stored in results["profiles"].items()}
    profiles = {label: profile for label, profile in profiles.items() if profile.sites}
    if profiles:
        found += _profile_figures(profiles)
    corruptions = {label: table for label, table in results["corruptions"].items() if table}
    if corruptions:
        found += _corruption_figures(corruptions)
    flips = {label: table for label, table in results["perturbations"].items() if table}
    if flips:
        found.append(
            (
                "Flip rates (ImageNet-P)",
                f"How often the top-1 class changes along a perturbation sequence, difficulty {results['difficulty']}.",
                "Bars of the flip rate on each perturbation.",
                lambda theme: plot_bars(
                    {
                        label: {name: 100 * row["flip_rate"]["value"] for name, row in t.items()}
                        for label, t in flips.items()
                    },
                    "flip rate (%)",
                    intervals={
                        label: {name: [100 * end for end in row["flip_rate"]["interval"]] for name, row in t.items()}
                        for label, t in flips.items()
                    },
                    theme=theme,
                ),
            )
        )
    return found


def _profile_figures(profiles: Mapping[str, Profile]) -> list[Plot]:
    return [
        (
            "Where the aliasing enters",
            "Internal feature distance over circular shifts at the downsampling sites: how far F(Shift(X)) is from "
            "Shift(F(X)). Dark is shift-equivariant. Max-pooling is split in its maximum, taken at every pixel, and "
            "its subsampling, which adds the stride's grid unless a low-pass filter comes first.",
            "Heat maps of the internal feature distance at the downsampling sites.",
            lambda theme: plot_site_maps(profiles, theme=theme),
        ),
        (
            "Which site adds how much",
            "Mean distance behind the site less that in front of it. Look first at the longest bars.",
            "Bars of the feature distance that each downsampling site adds.",
            lambda theme: plot_bars(
                {label: {site.path: site.added for site in profile.sites} for label, profile in profiles.items()},
                "internal feature distance added",
                theme=theme,
            ),
        ),
    ]


def _corruption_figures(
    corruptions: Mapping[str, Mapping[str, Mapping[str, Any]]],
) -> list[Plot]:
    means = {
        label: {name: 100 * sum(cell["value"] for cell in row.values()) / len(row) for name, row in table.items()}
        for label, table in corruptions.items()
    }
    return [
        (
            "Corruption errors (ImageNet-C)",
            "Top-1 error on corrupted images, the mean over severities.",
            "Bars of the error on each corruption.",
            lambda theme: plot_bars(means, "error (%), mean over severities", theme=theme),
        ),
        (
            "The same at each severity",
            "Top-1 error at severities 1 to 5.",
            "Line plots of the error against the severity, one for each corruption.",
            lambda theme: plot_severities(corruptions, theme=theme),
        ),
    ]


def site_tables(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    """A table of the downsampling sites for each network."""
    tables = []
    for label, found in results["sites"].items():
        profile = results["profiles"].get(label)
        measured = {site["path"]: site for site in profile["sites"]} if profile else {}
        columns = ["site", "kind", "stride", "size", "anti-aliasing"]
        columns += ["distance before", "after", "added", "periodicity"] if measured else []
        rows = []
        for site in found:
            sizes = " to ".join("x".join(map(str, size)) for size in (site["input_size"], site["output_size"]) if size)
            what = site["action"] or site["reason"] or site["status"]
            row = [site["path"] or "(function)", site["kind"].replace("_", " "), _times(site["stride"]), sizes, what]
            here = measured.get(site["path"])
            if measured and here is not None:
                row += [f"{here[key]:.4f}" for key in ("before", "after", "added")]
                row.append("-" if here["periodicity"] is None else f"{here['periodicity']:.2f}")
            elif measured:
                row += ["-"] * 4
            rows.append(row)
        text = "What dealias.antialias does there, or why it does nothing."
        if measured:
            text += (
                " Distances: means over the shifts mapped; periodicity 1: the distance vanishes on the strides' grid."
            )
        tables.append({"heading": f"Downsampling sites of {label}", "text": text, "columns": columns, "rows": rows})
    return tables


def _times(stride: Iterable[int]) -> str:
    return "x".join(map(str, stride))


def render_evaluation(results: Mapping[str, Any], slides: Sequence[Mapping[str, Any]]) -> str:
    """The report as one HTML page with everything in it.

    Args:
        results: what `results.json` holds.
        slides: what `slides.json` holds.
    """
    labels = list(results["metrics"])
    return render_page(
        title=f"dealias evaluation of {', '.join(labels)}",
        finding=evaluation_finding(results),
        photos_heading="Your images, the least stable first",
        photos=slides,
        figures=_drawn(evaluation_figures(results)),
        summary={"columns": ["", *labels], "rows": evaluation_rows(results)}
        if any(results["metrics"].values())
        else None,
        tables=[*_table_of_corruptions(results), *site_tables(results)],
        notes=_notes(results),
    )


def _drawn(figures: Iterable[Plot]) -> list[dict[str, str]]:
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


def _table_of_corruptions(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    tables = []
    for label, table in results["corruptions"].items():
        if not table:
            continue
        rows = [
            [name.replace("_", " "), *(f"{100 * cell['value']:.1f}" for cell in row.values())]
            for name, row in table.items()
        ]
        severities = [f"severity {severity}" for severity in next(iter(table.values()))]
        tables.append({"heading": f"Corruption errors of {label} (%)", "columns": ["", *severities], "rows": rows})
    return tables


def _notes(results: Mapping[str, Any]) -> list[str]:
    images = results["images"]
    notes = [
        f"{text.name[0].upper()}{text.name[1:]}: {text.definition}"
        for key, text in METRICS.items()
        if any(key in figures for figures in results["metrics"].values())
    ]
    notes.append(
        "Intervals are 95%; the images are their independent units. Behind a semicolon: the difference from "
        f"{results['baseline']} with the interval of paired images, in percentage points where the figure is a share."
    )
    for label, network in results["networks"].items():
        size = network["preprocessing"]
        made = [network["name"], f"anti-aliased with {network['antialias']}" if "antialias" in network else ""]
        made.append(
            f"weights {network['weights']}" if "weights" in network else "random weights unless its name gives some"
        )
        notes.append(
            f"{label}: {', '.join(part for part in made if part)}; short side resized to {size['image_size']} "
            f"({size['interpolation']}), {size['crop_size']} x {size['crop_size']} seen."
        )
    notes.append(f"{images['asked_for']:,} images of {images['place']}; seed {results['seed']}.")
    notes += results["notes"]
    if images["smaller_than_the_window"]:
        notes.append(f"{images['smaller_than_the_window']:,} images are smaller than what the network sees; enlarged.")
    notes += [
        f"{label} returned NaN for {count:,} images: no prediction, so wrong and unstable."
        for label, count in images["not_a_number"].items()
        if count
    ]
    if images["skipped"]:
        notes.append(f"{len(images['skipped']):,} files were skipped:")
        notes += [f"{name}: {reason}" for name, reason in images["skipped"][:50]]
    notes.append("All figures are in results.json and results.csv beside this page.")
    notes.append(", ".join(f"{name} {version}" for name, version in results["versions"].items()) + ".")
    return notes


def rewrite_report(folder: str | Path) -> Path:
    """Render `report.html` again from the `results.json` and `slides.json` of an evaluation's folder.

    Raises:
        InputError: the folder has no such files, or they are not an evaluation's.
    """
    place = Path(folder)
    try:
        results, slides = (json.loads((place / name).read_text()) for name in ("results.json", "slides.json"))
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(f"run={str(folder)!r} is no folder of a finished evaluation: {error}") from None
    if not isinstance(results, dict) or "measured" not in results:
        raise InputError(f"run={str(folder)!r} has results of another command: give the folder of an evaluation")
    page = place / "report.html"
    write_whole(page, render_evaluation(results, slides))
    return page


def render_profiles(stored: Mapping[str, Any]) -> str:
    """The report of `dealias profile`, from what its `profile.json` holds."""
    profiles = {label: Profile.from_json(found) for label, found in stored["profiles"].items()}
    measured = {label: profile for label, profile in profiles.items() if profile.sites}
    findings = [
        f"{label}: {profile.ranked()[0].path} adds most shift-variance ({profile.ranked()[0].added:.3f})"
        for label, profile in measured.items()
    ]
    columns = [
        "site",
        "kind",
        "pixels a sample",
        "distance before",
        "behind the maximum",
        "after",
        "added",
        "periodicity",
    ]
    tables = [
        {
            "heading": f"Sites of {label}, what adds most first",
            "text": "Internal feature distance, means over the shifts. Periodicity 1: it vanishes on the grid.",
            "columns": columns,
            "rows": [
                [
                    site.path,
                    site.kind.replace("_", " "),
                    _times(site.grid),
                    f"{site.before:.4f}",
                    "-" if site.maximum is None else f"{site.maximum:.4f}",
                    f"{site.after:.4f}",
                    f"{site.added:.4f}",
                    "-" if site.periodicity is None else f"{site.periodicity:.2f}",
                ]
                for site in profile.ranked()
            ],
        }
        for label, profile in measured.items()
    ]
    return render_page(
        title=f"dealias profile of {', '.join(profiles)}",
        finding=f"{'; '.join(findings)}." if findings else "No downsampling site has feature maps.",
        photos_heading="",
        photos=[],
        figures=_drawn(_profile_figures(measured) if measured else []),
        tables=tables,
        notes=[
            *(
                f"{label}: not profiled, as no layer of its own returns their maps: {', '.join(profile.missed)}."
                for label, profile in profiles.items()
                if profile.missed
            ),
            f"{next(iter(stored['images']['count'].values()))} images"
            + (f" of {stored['images']['place']}" if stored["images"]["place"] else " that packages bring")
            + f"; seed {stored['seed']}. All figures are in profile.json and profile.csv beside this page.",
            ", ".join(f"{name} {version}" for name, version in stored["versions"].items()) + ".",
        ],
    )
