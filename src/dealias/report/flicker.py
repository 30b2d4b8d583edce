"""The report of a flicker measurement: frames side by side through time, tracks, and tables."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from dealias.evaluation.clips import Clip
from dealias.evaluation.flicker import (
    Chunk,
    Flicker,
    NetworkFlicker,
    detections_of,
    read_chunks,
    read_flicker,
    shifts_of,
)
from dealias.evaluation.network import Network
from dealias.evaluation.tasks.stability import StabilityTask
from dealias.files import OutputFolder
from dealias.metrics.boxes import Detections
from dealias.metrics.outputs import Predictions
from dealias.metrics.site_profile import Profile
from dealias.metrics.tracks import Track, link_tracks
from dealias.optional import require
from dealias.report.page import Table, picture_source, render_page
from dealias.report.plots import plot_lines
from dealias.report.profiles import drawn, profile_tables
from dealias.report.theme import Theme

if TYPE_CHECKING:
    from matplotlib.figure import Figure

PAGE = "report.html"
MOST_FRAMES, MOST_BYTES, WIDTH = 100, 7_000_000, 480
"""Of the page's slider: frames, bytes of their JPEGs (a third more as text), and pixels across."""
_TRACKS = {
    "fragments": "tracks lost and found again, for each 100 frames",
    "jitter": "jitter: second difference of the boxes' centres over the diagonal (RMS)",
}
_LEFT_OUT = {
    "outside": "their centre lies outside what both frames show",
    "invalid": "a coordinate or score is not a finite number",
}
_PALETTE = np.array(
    [[0, 0, 0], [230, 97, 1], [15, 118, 110], [67, 56, 202], [161, 98, 7], [190, 24, 93], [71, 85, 105]]
)

Pixels = npt.NDArray[np.uint8]


def write_flicker_report(
    folder: OutputFolder, clips: Sequence[Clip], networks: Sequence[Network], profile: Profile | None = None
) -> Path:
    """Write `report.html` of a finished measurement into its folder; returns its path.

    Args:
        folder: open, with the results of `dealias.evaluation.flicker.measure_flicker`.
        clips, networks: those that were measured; some frames of the first clips are shown to the networks again.
        profile: of the first network, for the table of its sites.
    """
    results, chunks = read_flicker(folder.path), read_chunks(folder.path)
    figures = drawn(_track_plots(chunks, clips, list(results.networks))) if results.task == "detection" else []
    return folder.write(
        PAGE,
        render_page(
            title=f"dealias flicker of {', '.join(results.networks)}",
            finding=flicker_finding(results),
            frames=_frames(chunks, clips, networks),
            figures=figures,
            summary={"heading": "the figures", "columns": ["", *results.networks], "rows": flicker_rows(results)},
            tables=[
                *_group_tables(results),
                *(profile_tables({next(iter(results.networks)): profile}) if profile else []),
            ],
            notes=_notes(results),
        ),
    )


def flicker_finding(results: Flicker) -> str:
    """The result in one sentence."""
    if results.task == "detection" and not any(found.counts["boxes"] for found in results.networks.values()):
        return "No network found a box that could be compared with the next frame: there is nothing to measure."
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

    interval = "" if figure.interval is None else f" ({shown(figure.interval[0])} to {shown(figure.interval[1])})"
    return shown(figure.value) + interval


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


def _track_plots(chunks: Sequence[Chunk], clips: Sequence[Clip], labels: Sequence[str]) -> list[Any]:
    """Score, position and size of the first network's steadiest and least steady track, for each network."""
    mine = [chunk for chunk in chunks if chunk.clip == 0]
    tracks = {label: link_tracks(detections_of(mine, label), shifts_of(mine, clips[0])) for label in labels}
    chosen = {label: _extremes(found) for label, found in tracks.items()}
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
                    f"The steadiest and the least steady track of {clips[0].name}, by the jitter of its centre.",
                    f"Lines of the {name} of tracks against the frame.",
                    lambda theme, lines=lines, axis=axis: _plot(lines, axis, theme),
                )
            )
    return plots


def _plot(lines: Mapping[str, Any], name: str, theme: Theme) -> Figure:
    return plot_lines(lines, "frame", name, theme=theme)


def _extremes(tracks: Sequence[Track]) -> dict[str, Track]:
    """The tracks with the least and the most jitter, of those of at least five frames."""
    rated = {}
    for number, track in enumerate(tracks):
        steps = track.accelerations()
        if len(track.frames) >= 5 and len(steps):
            rated[number] = float(steps.square().mean().sqrt())
    if not rated:
        return {}
    steady, restless = min(rated, key=lambda each: rated[each]), max(rated, key=lambda each: rated[each])
    names = {"steadiest": steady} | ({"least steady": restless} if restless != steady else {})
    return {name: tracks[number] for name, number in names.items()}


def _distances(track: Track) -> list[float]:
    boxes = np.stack([box.numpy() for box in track.boxes])
    centres = (boxes[:, :2] + boxes[:, 2:]) / 2
    return [float(each) for each in np.linalg.norm(centres - centres.mean(0), axis=1)]


def _frames(chunks: Sequence[Chunk], clips: Sequence[Clip], networks: Sequence[Network]) -> dict[str, Any]:
    """Frames of the clips with the networks' answers drawn, as the page's slider takes them."""
    total = sum(len(chunk.numbers) for chunk in chunks)
    every = max(-(-total // MOST_FRAMES), 1)
    shown: list[tuple[str, list[bytes]]] = []
    place = 0
    for clip in clips:
        for shot in clip.shots():
            if place % every == 0:
                pictures = [_drawn(shot.pixels.numpy(), network.answers(shot.pixels[None])) for network in networks]
                shown.append((f"{clip.name}, frame {shot.number}", pictures))
            place += 1
    frames = [
        {"label": label, "sources": [picture_source(picture) for picture in pictures]}
        for label, pictures in _within(shown, MOST_BYTES)
    ]
    return {"names": [network.spec.label for network in networks], "frames": frames}


def _within(shown: Sequence[tuple[str, list[bytes]]], most: int) -> Sequence[tuple[str, list[bytes]]]:
    """Every frame, or every second, third ... one up to the end: as many as have pictures of `most` bytes at most."""
    sizes = [sum(map(len, pictures)) for _, pictures in shown]
    step = next((step for step in range(1, len(shown)) if sum(sizes[::step]) <= most), len(shown) or 1)
    return shown[::step]


def _drawn(pixels: Pixels, answers: Predictions) -> bytes:
    """The JPEG of a frame (C, H, W) with what a network returned for it."""
    scene = np.array(np.broadcast_to(pixels, (3, *pixels.shape[1:])).transpose(1, 2, 0), order="C")
    found = answers.values[0]
    caption = ""
    if isinstance(found, Detections):
        scene = _with_detections(scene, found)
    elif answers.task == "segmentation":
        colours = _PALETTE[found.numpy() % len(_PALETTE)]
        scene = np.where(found.numpy()[..., None] > 0, 0.5 * scene + 0.5 * colours, scene).astype(np.uint8)
    elif answers.task == "keypoints":
        scene = _with_points(scene, found.numpy()[None])
    elif answers.task == "classes":
        scores = found.float().softmax(-1) if found.is_floating_point() else None
        caption = (
            f"class {int(found)}" if scores is None else f"class {int(scores.argmax())}, {float(scores.max()):.0%}"
        )
    image = require("PIL.Image").fromarray(scene)
    if image.width > WIDTH:
        image = image.resize((WIDTH, WIDTH * image.height // image.width))
    if caption:
        require("PIL.ImageDraw").Draw(image).text((4, 4), caption, fill="white", stroke_width=2, stroke_fill="black")
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=70)
    return buffer.getvalue()


def _with_detections(scene: Pixels, found: Detections) -> Pixels:
    supervision = _supervision()
    if not len(found):
        return scene
    detections = supervision.Detections(
        xyxy=found.boxes.numpy(),
        confidence=found.scores.numpy(),
        class_id=found.labels.numpy(),
        mask=None if found.masks is None else found.masks.numpy(),
    )
    thickness = max(min(scene.shape[:2]) // 200, 1)
    if found.masks is not None:
        scene = supervision.MaskAnnotator().annotate(scene, detections)
    drawn_scene: Pixels = supervision.BoxAnnotator(thickness=thickness).annotate(scene, detections)
    return drawn_scene if found.points is None else _with_points(drawn_scene, found.points.numpy())


def _with_points(scene: Pixels, points: npt.NDArray[Any]) -> Pixels:
    supervision = _supervision()
    places = np.nan_to_num(points, nan=-100)
    radius = max(min(scene.shape[:2]) // 100, 2)
    marked: Pixels = supervision.VertexAnnotator(radius=radius).annotate(scene, supervision.KeyPoints(xy=places))
    return marked


def _supervision() -> Any:
    with warnings.catch_warnings(action="ignore"):  # it draws without OpenCV too
        return require("supervision")
