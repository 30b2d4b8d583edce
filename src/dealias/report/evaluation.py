"""The report of an evaluation, from what its `results.json` and `slides.json` hold."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from dealias.errors import InputError
from dealias.files import write_whole
from dealias.metrics.site_profile import Profile
from dealias.report.metrics import consistency_key, evaluation_columns, evaluation_finding, evaluation_rows
from dealias.report.page import render_page
from dealias.report.plots import (
    plot_accuracy_consistency,
    plot_bars,
    plot_mean_probability,
    plot_severities,
)
from dealias.report.profiles import Plot, drawn, profile_figures
from dealias.report.summary import METRICS


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
        found += profile_figures(profiles)
    corruptions = {label: table for label, table in results["corruptions"].items() if table}
    if corruptions:
        found += _corruption_figures(corruptions)
    flips = {label: _spaced(table) for label, table in results["perturbations"].items() if table}
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


def _corruption_figures(
    corruptions: Mapping[str, Mapping[str, Mapping[str, Any]]],
) -> list[Plot]:
    means = {
        label: {name: 100 * sum(cell["value"] for cell in row.values()) / len(row) for name, row in table.items()}
        for label, table in ((label, _spaced(table)) for label, table in corruptions.items())
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


def _spaced(table: Mapping[str, Any]) -> dict[str, Any]:
    """Names for people: "motion blur"."""
    return {name.replace("_", " "): row for name, row in table.items()}


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
        figures=drawn(evaluation_figures(results)),
        summary={"columns": evaluation_columns(results), "rows": evaluation_rows(results)}
        if any(results["metrics"].values())
        else None,
        tables=[*_table_of_corruptions(results), *site_tables(results)],
        notes=_notes(results),
    )


def _table_of_corruptions(results: Mapping[str, Any]) -> list[dict[str, Any]]:
    tables = []
    for label, table in results["corruptions"].items():
        if not table:
            continue
        rows = [
            [name, *(f"{100 * cell['value']:.1f}" for cell in row.values())] for name, row in _spaced(table).items()
        ]
        severities = [f"severity {severity}" for severity in next(iter(table.values()))]
        tables.append({"heading": f"Corruption errors of {label} (%)", "columns": ["", *severities], "rows": rows})
    return tables


def _notes(results: Mapping[str, Any]) -> list[str]:
    images = results["images"]
    notes = [
        text.note for key, text in METRICS.items() if any(key in figures for figures in results["metrics"].values())
    ]
    notes.append(
        "Intervals are 95%; the images are their independent units. Change: from "
        f"{results['baseline']}, with the interval of paired images, in percentage points where the figure is a share."
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
    except FileNotFoundError as error:
        raise InputError(
            f"run={str(folder)!r} is no folder of a finished evaluation or of a training run: there is no "
            f"{error.filename}; give the --output of dealias evaluate or train"
        ) from None
    except (OSError, json.JSONDecodeError) as error:
        raise InputError(f"run={str(folder)!r} cannot be read as a finished evaluation: {error}") from None
    if not isinstance(results, dict) or "measured" not in results:
        raise InputError(f"run={str(folder)!r} has results of another command: give the folder of an evaluation")
    page = place / "report.html"
    write_whole(page, render_evaluation(results, slides))
    return page
