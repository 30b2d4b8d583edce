"""The report of an evaluation, from its `results.json` and `slides.json`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from dealias.errors import InputError
from dealias.evaluation.estimates import Figure
from dealias.evaluation.results import NetworkRecord, Results, Slide, read_results
from dealias.evaluation.tasks import FIGURE_TEXTS, PLOT_TEXTS
from dealias.files import write_report_file
from dealias.report.metric_text import format_figure, shown_texts
from dealias.report.page import Table, render_page
from dealias.report.plots import plot_accuracy_consistency, plot_bars, plot_lines, plot_severities
from dealias.report.profiles import Plot, drawn, profile_figures, site_rows

if TYPE_CHECKING:
    from matplotlib.figure import Figure as MatplotlibFigure

    from dealias.report.theme import Theme

_Row = TypeVar("_Row")


def write_report(folder: str | Path) -> Path:
    """Render `report.html` from the `results.json` and `slides.json` of an evaluation's folder.

    Raises:
        InputError: a file is missing, or a key in it is missing or of another type.
    """
    try:
        results, slides = read_results(folder)
    except FileNotFoundError as error:
        raise InputError(
            f"run={str(folder)!r} is not the folder of a finished evaluation or of a training run: there is no "
            f"{error.filename}; give the --output of dealias evaluate or train"
        ) from None
    return write_report_file(folder, "report.html", render_evaluation(results, slides))


def render_evaluation(results: Results, slides: Sequence[Slide]) -> str:
    """The report as one HTML page with everything in it."""
    labels = list(results.metrics)
    return render_page(
        title=f"dealias evaluation of {', '.join(labels)}",
        finding=evaluation_finding(results),
        photos=("Your images, the least stable first", slides),
        figures=drawn(evaluation_figures(results)),
        summary={"columns": evaluation_columns(results), "rows": evaluation_rows(results)}
        if any(results.metrics.values())
        else None,
        tables=[*_corruption_tables(results), *site_tables(results)],
        notes=list(_notes(results)),
    )


def evaluation_columns(results: Results) -> list[str]:
    """The metric, the baseline, and each other network with its change from that."""
    first, *others = results.metrics
    return ["", first, *(column for label in others for column in (label, "change"))]


def evaluation_rows(results: Results) -> list[list[str]]:
    """A row for each metric that a network has, under `evaluation_columns`."""
    first, *others = results.metrics
    rows = []
    for key, text in shown_texts(results.metrics).items():
        row = [text.name, format_figure(key, results.metrics[first].get(key))]
        for label in others:
            change = results.differences[label].get(key)
            row.append(format_figure(key, results.metrics[label].get(key)))
            row.append("" if change is None else format_figure(key, change, signed=True))
        rows.append(row)
    return rows


def consistency_key(figures: Mapping[str, Figure]) -> str | None:
    """The form of consistency that stands for the others: windows', else circular shifts'."""
    return next((key for key in ("crop_consistency", "circular_consistency") if key in figures), None)


def evaluation_finding(results: Results) -> str:
    """The result in a sentence."""
    baseline = results.baseline
    figures = results.metrics[baseline]
    key = consistency_key(figures) or next(iter(figures), None)
    if key is None:
        return f"{baseline} was measured; see below."
    text, images = FIGURE_TEXTS[key], f"{figures[key].images:,} images"
    others = []
    for label, differences in results.differences.items():
        if key in differences:
            low, high = differences[key].interval or (-1.0, 1.0)
            verdict = "" if low > 0 or high < 0 else ", not told apart by this many images"
            others.append(f"{label}: {_plain(key, results.metrics[label][key])}{verdict}")
    if text.finding:
        found = f"{baseline} {text.finding} {_plain(key, figures[key])} of cases ({images})"
    else:
        found = f"{baseline}: {text.name} {_plain(key, figures[key])} on {images}"
    return f"{'; '.join([found, *others])}."


def _plain(key: str, figure: Figure) -> str:
    return format_figure(key, Figure(figure.value, None))


def evaluation_figures(results: Results) -> list[Plot]:
    """Heading, text, alternative text and plot of every figure for which there are results."""
    profiles = {label: profile for label, profile in results.profiles.items() if profile.sites}
    found = [*_accuracy_figures(results), *_curve_figures(results)]
    found += profile_figures(profiles) if profiles else []
    return [*found, *_corruption_figures(results), *_perturbation_figures(results)]


def _figure(key: str, plot: Callable[[Theme], MatplotlibFigure], more: str = "") -> Plot:
    text = PLOT_TEXTS[key]
    return text.heading, f"{text.text}{more}", text.alt, plot


def _accuracy_figures(results: Results) -> Iterator[Plot]:
    key = consistency_key(results.metrics[results.baseline])
    points = {
        label: {"accuracy": figures["accuracy"], "consistency": figures[key]}
        for label, figures in results.metrics.items()
        if key is not None and "accuracy" in figures and key in figures
    }
    if points and key is not None:
        published, more = key == "crop_consistency", f" Consistency: {FIGURE_TEXTS[key].definition}"
        if published:
            more += " In grey the paper's networks on ImageNet: compare where your images are ImageNet's too."
        yield _figure(
            "accuracy_consistency",
            lambda theme: plot_accuracy_consistency(points, published=published, theme=theme),
            more,
        )


def _curve_figures(results: Results) -> Iterator[Plot]:
    if results.curves:
        lines = {label: list(enumerate(values)) for label, values in results.curves.items()}
        axes = ("shift along the diagonal (px)", "mean P(correct)")
        yield _figure("curves", lambda theme: plot_lines(lines, *axes, theme=theme))


def _corruption_figures(results: Results) -> Iterator[Plot]:
    tables = {label: table for label, table in results.corruptions.items() if table}
    if not tables:
        return
    means = {
        label: {name: 100 * sum(cell.value for cell in row.values()) / len(row) for name, row in _spaced(table).items()}
        for label, table in tables.items()
    }
    yield _figure("corruptions", lambda theme: plot_bars(means, "error (%), mean over severities", theme=theme))
    yield _figure("severities", lambda theme: plot_severities(tables, theme=theme))


def _perturbation_figures(results: Results) -> Iterator[Plot]:
    rates = {
        label: {name: row["flip_rate"] for name, row in _spaced(table).items()}
        for label, table in results.perturbations.items()
        if table
    }
    if rates:
        values = {label: {name: 100 * rate.value for name, rate in row.items()} for label, row in rates.items()}
        ends = {
            label: {name: [100 * end for end in rate.interval or ()] for name, rate in row.items()}
            for label, row in rates.items()
        }
        yield _figure(
            "perturbations",
            lambda theme: plot_bars(values, "flip rate (%)", intervals=ends, theme=theme),
            f" Difficulty {results.difficulty}.",
        )


def _spaced(table: Mapping[str, _Row]) -> dict[str, _Row]:
    """Names for people: "motion blur"."""
    return {name.replace("_", " "): row for name, row in table.items()}


def site_tables(results: Results) -> list[Table]:
    """A table of the downsampling sites for each network."""
    tables: list[Table] = []
    for label, found in results.sites.items():
        profile = results.profiles.get(label)
        measured = {path: [before, *rest] for path, _, _, before, _, *rest in site_rows(profile)} if profile else {}
        columns = ["site", "kind", "stride", "size", "anti-aliasing"]
        columns += ["distance before", "after", "added", "periodicity"] if measured else []
        rows = []
        for site in found:
            sizes = " to ".join("x".join(map(str, size)) for size in (site.input_size, site.output_size) if size)
            done = site.action or site.reason or site.status
            stride = "x".join(map(str, site.stride))
            row = [site.path or "(function)", site.kind.replace("_", " "), stride, sizes, done]
            rows.append([*row, *measured.get(site.path, ["-"] * 4)] if measured else row)
        text = "What dealias.antialias does there, or why it does nothing."
        more = " Distances: means over the shifts mapped; periodicity 1: the distance vanishes on the strides' grid."
        text += more if measured else ""
        tables.append({"heading": f"Downsampling sites of {label}", "text": text, "columns": columns, "rows": rows})
    return tables


def _corruption_tables(results: Results) -> Iterator[Table]:
    for label, table in results.corruptions.items():
        if table:
            severities = [f"severity {severity}" for severity in next(iter(table.values()))]
            rows = [
                [name, *(f"{100 * figure.value:.1f}" for figure in row.values())]
                for name, row in _spaced(table).items()
            ]
            yield {"heading": f"Corruption errors of {label} (%)", "columns": ["", *severities], "rows": rows}


def _notes(results: Results) -> Iterator[str]:
    yield from (text.note for text in shown_texts(results.metrics).values())
    for label, reaches in results.reaches.items():
        if reaches:
            shifts = "; ".join(f"{mode.replace('_', '-')}, {reach}" for mode, reach in reaches.items())
            yield f"Shifts of {label}: {shifts}."
    yield (
        "Intervals are 95%; the images are their independent units. Change: from "
        f"{results.baseline}, with the interval of paired images, in percentage points where the figure is a fraction."
    )
    for label, network in results.networks.items():
        yield _network_note(label, network)
        yield from _untrained_note(label, results)
    yield from _image_notes(results)
    yield "All figures are in results.json and results.csv beside this page."
    yield ", ".join(f"{name} {version}" for name, version in results.versions.items()) + "."


def _network_note(label: str, network: NetworkRecord) -> str:
    size = network.preprocessing
    made = [network.name]
    method = f" ({network.method})" if network.method else ""
    made += [f"anti-aliased with {network.antialias}{method}"] if network.antialias else []
    made.append(f"weights {network.weights}" if network.weights else "random weights unless its name gives some")
    return (
        f"{label}: {', '.join(made)}; short side resized to {size.image_size} ({size.interpolation}), "
        f"{size.crop_size} x {size.crop_size} seen."
    )


def _untrained_note(label: str, results: Results) -> Iterator[str]:
    network, baseline = results.networks[label], results.networks[results.baseline]
    same_weights = (network.name, network.sha256) == (baseline.name, baseline.sha256)
    if network.antialias and not baseline.antialias and same_weights:
        yield (
            f"{label} has the weights of {results.baseline} and was not trained after the conversion: its figures are "
            "a starting point for training, not a result. A network gains from anti-aliasing once trained with it."
        )


def _image_notes(results: Results) -> Iterator[str]:
    images = results.images
    yield f"{images.asked_for:,} images of {images.place}; seed {results.seed}."
    yield from results.notes
    if images.smaller_than_the_window:
        yield f"{images.smaller_than_the_window:,} images are smaller than what the network sees; enlarged."
    for label, count in images.not_a_number.items():
        if count:
            yield f"{label} returned NaN for {count:,} images: no prediction, so wrong and unstable."
    if images.skipped:
        yield f"{len(images.skipped):,} files were skipped:"
        yield from (f"{name}: {reason}" for name, reason in images.skipped[:50])
