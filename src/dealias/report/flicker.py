"""The report of a flicker measurement: frames side by side through time, tracks, and tables."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from dealias.evaluation.clips import Clip
from dealias.evaluation.flicker import Flicker, NetworkFlicker, detections_by_clip, read_flicker
from dealias.evaluation.snapshots import Snapshot, Snapshots
from dealias.evaluation.tasks.stability import StabilityTask
from dealias.files import OutputFolder
from dealias.metrics.boxes import Detections
from dealias.metrics.site_profile import Profile
from dealias.metrics.tracks import Track, extreme_tracks
from dealias.report.page import Table, picture_source, render_page
from dealias.report.plots import plot_lines
from dealias.report.profiles import drawn, profile_tables
from dealias.report.theme import Theme

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = "report.html"
MOST_BYTES = 7_000_000
"""Of the JPEGs of the page's slider; a third more as text."""
_TRACKS = {
    "fragments": "tracks lost and found again, for each 100 frames",
    "jitter": "jitter: second difference of the boxes' centres over the diagonal (RMS)",
}
_LEFT_OUT = {
    "outside": "their centre lies outside what both frames show",
    "invalid": "a coordinate or score is not a finite number",
}


def write_flicker_report(
    folder: OutputFolder, clips: Sequence[Clip], profile: Profile | None = None, remarks: Sequence[str] = ()
) -> Path:
    """Write `report.html` of a finished measurement into its folder; returns its path.

    Args:
        folder: open, with the results of `dealias.evaluation.flicker.measure_flicker`.
        clips: those that were measured.
        profile: of the first network, for the table of its sites.
        remarks: sentences on the networks.
    """
    results = read_flicker(folder.path)
    figures = drawn(_track_plots(folder.path, clips[0], list(results.networks))) if results.task == "detection" else []
    snapshots = Snapshots(folder, clips).chosen({number: clip["frames"] for number, clip in enumerate(results.clips)})
    return folder.write(
        PAGE,
        render_page(
            title=f"dealias flicker of {'; '.join(results.networks)}",
            finding=flicker_finding(results),
            frames=_frames(snapshots, results),
            figures=figures,
            summary={"heading": "the figures", "columns": ["", *results.networks], "rows": flicker_rows(results)},
            tables=[
                *_group_tables(results),
                *(profile_tables({next(iter(results.networks)): profile}) if profile else []),
            ],
            notes=[*remarks, *_notes(results)],
        ),
    )


def flicker_finding(results: Flicker) -> str:
    """The result in one sentence."""
    if results.task == "detection" and not any(found.counts["boxes"] for found in results.networks.values()):
        return (
            "No network found a box that could be compared with the next frame: there is nothing to measure. A lower "
            "--least-score keeps more of their boxes."
        )
    texts = _texts(results)
    key = next(iter(texts))
    known = all(clip["known_motion"] for clip in results.clips)
    place = "when the camera moves by one step" if known else "from one frame of the video to the next"
    values = [f"{_value(key, found, results)} for {label}" for label, found in results.networks.items()]
    return f"{texts[key][0].upper()}{texts[key][1:]} {place}: {'; '.join(values)}."


def flicker_rows(results: Flicker) -> list[list[str]]:
    """A row for each figure: its name, and its value for each network."""
    return [
        [text, *(_value(key, found, results) for found in results.networks.values())]
        for key, text in _texts(results).items()
    ]


def _texts(results: Flicker) -> dict[str, str]:
    """The names of the figures that any network has, the task's main figure first."""
    known = {key: text.name for key, text in StabilityTask.FIGURES.items() if key.startswith(f"{results.task}_")}
    named = {key.partition("_")[2]: name for key, name in known.items()}
    named |= {"consistency": "the same top-1 class"} if results.task == "classes" else {}
    named |= _TRACKS
    return {
        key: text for key, text in named.items() if any(key in found.figures for found in results.networks.values())
    }


def _value(key: str, found: NetworkFlicker, results: Flicker) -> str:
    figure = found.figures.get(key)
    if figure is None:
        return "-"
    text = StabilityTask.FIGURES.get(f"{results.task}_{key}")
    is_share = key == "consistency" or (text is not None and text.is_fraction)

    def shown(value: float) -> str:
        return f"{100 * value:.1f}%" if is_share else f"{value:.3g}"

    low, high = figure.interval or (0.0, math.inf)
    # all that is possible, which one photograph or a short video leaves
    is_empty = low == 0 and high in (1, math.inf)
    return shown(figure.value) + ("" if is_empty else f" ({shown(low)} to {shown(high)})")


def _group_tables(results: Flicker) -> list[Table]:
    """Tables of detections by class and by size, for each network."""
    tables: list[Table] = []
    for label, found in results.networks.items():
        for heading, groups in (("class", found.by_class), ("size", found.by_size)):
            if groups:
                rows = [
                    [
                        name,
                        f"{each['boxes']:,.0f}",
                        f"{each['matched']:.1%}",
                        f"{each['jump']:.2f}" if "jump" in each else "-",
                    ]
                    for name, each in sorted(groups.items(), key=lambda item: -item[1]["boxes"])[:40]
                ]
                columns = [heading, "boxes", "matched in the next frame", "centre's jump (px)"]
                tables.append({"heading": f"{label}, by {heading}", "columns": columns, "rows": rows})
    return tables


def _notes(results: Flicker) -> list[str]:
    frames = sum(clip["frames"] for clip in results.clips)
    skipped = [f"frame {number} of {clip['name']}: {why}" for clip in results.clips for number, why in clip["skipped"]]
    known = all(clip["known_motion"] for clip in results.clips)
    return [
        f"{frames:,} frames of {len(results.clips)} {'photographs' if known else 'video'}. "
        + (
            "A window slides over each photograph, so the true motion is known and undone: a network that is "
            "equivariant to shifts would be perfect."
            if known
            else "The motion of the scene is unknown, so all change counts: compare the networks."
        ),
        *(
            f"{label}: {count:,} boxes, counted in each pair of frames, were left out because {why}."
            for label, found in results.networks.items()
            for key, why in _LEFT_OUT.items()
            if (count := found.counts.get(key, 0))
        ),
        *([f"{len(skipped)} frames were skipped: {'; '.join(skipped[:20])}"] if skipped else []),
        "All figures are in results.json beside this page.",
        ", ".join(f"{name} {version}" for name, version in results.versions.items()) + ".",
    ]


def _track_plots(folder: Path, clip: Clip, labels: Sequence[str]) -> list[Any]:
    """Score, position and size of the steadiest and least steady track of the first clip, for each network."""
    chosen = {label: extreme_tracks(partial(_first_frames, folder, label), clip.shifts) for label in labels}
    quantities: dict[str, tuple[str, Callable[[Track], Sequence[float]]]] = {
        "score": ("score", lambda track: track.scores),
        "distance of the centre from its mean": ("distance (px)", _distances),
        "diagonal of the box": (
            "diagonal (px)",
            lambda track: [float((box[2:] - box[:2]).norm()) for box in track.boxes],
        ),
    }
    plots = []
    for name, (axis, quantity) in quantities.items():
        lines = {
            f"{label}, {which}": list(zip(map(float, track.frames), map(float, quantity(track)), strict=True))
            for label, found in chosen.items()
            for which, track in found.items()
        }
        if lines:
            plots.append(
                (
                    f"Tracks through time: {name}",
                    f"The steadiest and the least steady track of {clip.name}, by the jitter of its centre.",
                    f"Lines of the {name} of tracks against the frame.",
                    lambda theme, lines=lines, axis=axis: _plot(lines, axis, theme),
                )
            )
    return plots


def _first_frames(folder: Path, label: str) -> Iterator[Detections]:
    """The detections of a network in the frames of the first clip."""
    _, _, frames = next(detections_by_clip(folder, label))
    return (found for _, found in frames)


def _plot(lines: Mapping[str, Any], name: str, theme: Theme) -> Figure:
    return plot_lines(lines, "frame", name, theme=theme)


def _distances(track: Track) -> list[float]:
    boxes = torch.stack(track.boxes)
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    return list(map(float, (centres - centres.mean(0)).norm(dim=1)))


def _frames(snapshots: Sequence[Snapshot], results: Flicker) -> dict[str, Any]:
    """The frames of the page's slider through time."""
    shown = _within(snapshots, MOST_BYTES)
    frames = [
        {
            "label": f"{results.clips[each.clip]['name']}, frame {each.number}",
            "sources": [picture_source(path.read_bytes()) for path in each.pictures],
        }
        for each in shown
    ]
    return {"names": list(results.networks), "frames": frames}


def _within(snapshots: Sequence[Snapshot], most: int) -> Sequence[Snapshot]:
    """Every frame, or every second, third ... one up to the end: as many as have pictures of `most` bytes at most."""
    sizes = [sum(path.stat().st_size for path in each.pictures) for each in snapshots]
    count = len(snapshots)
    step = next((step for step in range(1, count) if sum(sizes[::step]) <= most), count or 1)
    return snapshots[::step]
