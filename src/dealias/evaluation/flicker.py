"""Flicker: how much of what networks return changes from frame to frame, of videos or of pans of known motion."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice, pairwise
from pathlib import Path
from typing import Any

import torch

from dealias.errors import InputError
from dealias.evaluation.clips import Clip, Shot
from dealias.evaluation.estimates import Figure
from dealias.evaluation.network import Network
from dealias.files import OutputFolder
from dealias.metrics._overlap import overlap
from dealias.metrics.boxes import Detections
from dealias.metrics.comparisons import Findings, Pairs, comparison_of, merged
from dealias.metrics.detection import matched_detections
from dealias.metrics.outputs import Predictions
from dealias.metrics.tracks import TrackStability
from dealias.progress import OnProgress
from dealias.records import read_json, read_json_lines
from dealias.runtime import versions

SETTINGS, CHUNKS, RESULTS = "settings.json", "chunks.jsonl", "results.json"
FRAMES_IN_CHUNK = 32
SIZES = {"small": 32.0**2, "medium": 96.0**2, "large": math.inf}
"""Largest area, in pixels, of COCO's sizes of objects."""

Box = dict[str, list[Any]]


@dataclass(frozen=True)
class Chunk:
    """Frames in a row of a clip, measured: a line of `chunks.jsonl`.

    Attributes:
        clip: number of the clip.
        start, stop: the shots of it, from the first to the one behind the last.
        numbers: of the frames in the clip.
        size: (height, width) of the frames.
        states: for each network, the comparison of each frame with the one before.
        boxes: for each network and frame, its detections; empty for other tasks.
    """

    clip: int
    start: int
    stop: int
    numbers: list[int]
    size: tuple[int, int]
    states: dict[str, dict[str, Any]]
    boxes: dict[str, list[Box]]


@dataclass(frozen=True)
class NetworkFlicker:
    """What was found of a network.

    Attributes:
        figures: of the task's metric from one frame to the next (see `dealias.measure_stability`), and of tracks.
        counts: of the pairs of frames, and of what was left out.
        by_class, by_size: of detections, by label and by COCO's sizes: boxes, the fraction of them matched in the next
            frame, and the mean distance that their centre jumps, in pixels.
    """

    figures: dict[str, Figure]
    counts: dict[str, int]
    by_class: dict[str, dict[str, float]] = field(default_factory=dict)
    by_size: dict[str, dict[str, float]] = field(default_factory=dict)


@dataclass(frozen=True)
class Flicker:
    """The results of `measure_flicker`: the record of `results.json`.

    Attributes:
        task: what the networks return.
        clips: for each clip its name, number of frames, whether its motion is known, and the frames skipped.
        networks: what was found of each, by its label.
        settings: as asked for.
        versions: of dealias, PyTorch and Python.
    """

    task: str
    clips: list[dict[str, Any]]
    networks: dict[str, NetworkFlicker]
    settings: dict[str, Any]
    versions: dict[str, str]


def measure_flicker(
    networks: Sequence[Network],
    clips: Sequence[Clip],
    folder: OutputFolder,
    settings: Mapping[str, Any],
    *,
    on_progress: OnProgress = lambda stage, done: None,
) -> Flicker:
    """Show the frames of clips to networks, and measure how much their answers change from one frame to the next.

    The displacement of the scene is undone where it is known: answers are compared on the part that both frames show.
    Chunks that the folder already has are not measured again.

    Args:
        networks: of one task, with labels of their own.
        clips: of `dealias.evaluation.clips`.
        folder: open, to write `settings.json`, `chunks.jsonl` and `results.json` into.
        settings: all on which the answers depend, as JSON.
        on_progress: called with the stage and the fraction of the work done.

    Raises:
        InputError: the folder has a run with other settings; the networks' answers are of several tasks; no two
            frames in a row could be read.
    """
    tasks = {network.task for network in networks}
    if len(tasks) > 1:
        raise InputError(f"models return different things ({', '.join(sorted(tasks))}): give networks of one task")
    wanted = json.loads(json.dumps(dict(settings)))
    stored = folder.path / SETTINGS
    if stored.exists() and read_json(dict[str, Any], stored) != wanted:
        raise InputError(f"output={str(folder.path)!r} has a run with other settings: name another folder")
    folder.write(SETTINGS, json.dumps(wanted, indent=1) + "\n")
    done = read_chunks(folder.path)
    skipped: dict[int, list[Any]] = {}
    for number, clip in enumerate(clips):
        mine = [chunk for chunk in done if chunk.clip == number]
        measured = 0
        for chunk in _measure_clip(number, clip, networks, after=max((each.stop for each in mine), default=0)):
            _append(folder, chunk)
            measured = chunk.stop
            share = min(measured / clip.length, 1.0) if clip.length else 0.5
            on_progress(clip.name, 0.95 * (number + share) / len(clips))
        skipped[number] = [list(each) for each in clip.skipped]
    results = _summarise(read_chunks(folder.path), clips, skipped, networks, wanted)
    folder.write(RESULTS, json.dumps(asdict(results), indent=1) + "\n")
    return results


def read_flicker(folder: str | Path) -> Flicker:
    """The results in the folder of a run.

    Raises:
        InputError: there are none, or they are damaged.
    """
    return read_json(Flicker, Path(folder) / RESULTS)


def read_chunks(folder: str | Path) -> list[Chunk]:
    """The chunks measured so far, in order."""
    path = Path(folder) / CHUNKS
    found = read_json_lines(Chunk, path) if path.exists() else []
    return sorted(found, key=lambda chunk: (chunk.clip, chunk.start))


def detections_of(chunks: Iterable[Chunk], label: str) -> list[Detections]:
    """The detections of a network in the frames of chunks."""
    return [_detections(box) for chunk in chunks for box in chunk.boxes[label]]


def shifts_of(chunks: Iterable[Chunk], clip: Clip) -> list[tuple[float, float]] | None:
    """The known displacement of the scene in the frames of a clip's chunks."""
    shifts = clip.shifts
    return None if shifts is None else [shifts[number] for chunk in chunks for number in chunk.numbers]


def _append(folder: OutputFolder, chunk: Chunk) -> None:
    folder.own(CHUNKS)
    with (folder.path / CHUNKS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(asdict(chunk), separators=(",", ":")) + "\n")


def _measure_clip(number: int, clip: Clip, networks: Sequence[Network], after: int) -> Iterator[Chunk]:
    """The chunks from the shot `after` on; the shot before it is seen again, to compare the next one with."""
    shots = islice(enumerate(clip.shots()), max(after - 1, 0), None)
    before: dict[str, tuple[Shot, Predictions]] = {}
    if after:
        _, shot = next(shots, (0, None))
        if shot is None:
            return
        before = {network.spec.label: (shot, network.answers(shot.pixels[None])) for network in networks}
    while part := list(islice(shots, FRAMES_IN_CHUNK)):
        places, frames = zip(*part, strict=True)
        states, boxes = {}, {}
        for network in networks:
            label = network.spec.label
            answers = network.answers(torch.stack([frame.pixels for frame in frames]))
            told = [before[label], *_single(frames, answers)] if label in before else _single(frames, answers)
            states[label] = _compare(number, clip, told)
            boxes[label] = [_as_box(each) for each in answers.values if isinstance(each, Detections)]
            before[label] = told[-1]
        height, width = frames[0].pixels.shape[1:]
        numbers = [frame.number for frame in frames]
        yield Chunk(number, places[0], places[-1] + 1, numbers, (height, width), states, boxes)


def _single(frames: Sequence[Shot], answers: Predictions) -> list[tuple[Shot, Predictions]]:
    return [(frame, Predictions(answers.task, answers.values[place : place + 1])) for place, frame in enumerate(frames)]


def _compare(number: int, clip: Clip, told: Sequence[tuple[Shot, Predictions]]) -> dict[str, Any]:
    """The state of the comparison of frames in a row; a skipped frame between two ends the row."""
    comparison = comparison_of(told[0][1].task)
    for (one, before), (other, after) in pairwise(told):
        if other.number != one.number + 1:
            continue
        shift = (0.0, 0.0)
        if clip.shifts is not None:
            (y, x), (then_y, then_x) = clip.shifts[one.number], clip.shifts[other.number]
            shift = (then_y - y, then_x - x)
        height, width = one.pixels.shape[1:]
        # a video is one scene: its chunks stand for images in the intervals
        image = number if clip.shifts is not None else one.number // FRAMES_IN_CHUNK
        values = Predictions.joined([before, after]).values
        comparison.compare(values, Pairs(image, [(0, 1)], [shift], (height, width)))
    return comparison.state()


def _as_box(found: Detections) -> Box:
    box: Box = {
        "boxes": [[round(float(part), 3) for part in each] for each in found.boxes],
        "scores": [round(float(score), 5) for score in found.scores],
        "labels": found.labels.tolist(),
    }
    if found.points is not None:
        flat = [
            [None if math.isnan(part) else round(part, 3) for part in each] for each in found.points.flatten(1).tolist()
        ]
        box["points"] = flat
    return box


def _detections(box: Box) -> Detections:
    boxes = torch.tensor(box["boxes"], dtype=torch.float64).reshape(-1, 4)
    scores = torch.tensor(box["scores"], dtype=torch.float64)
    labels = torch.tensor(box["labels"], dtype=torch.long)
    points = None
    if box.get("points"):
        flat = [[math.nan if part is None else part for part in each] for each in box["points"]]
        points = torch.tensor(flat, dtype=torch.float64).unflatten(1, (-1, 2))
    return Detections(boxes, scores, labels, None, points)


def _summarise(
    chunks: Sequence[Chunk],
    clips: Sequence[Clip],
    skipped: Mapping[int, list[Any]],
    networks: Sequence[Network],
    settings: dict[str, Any],
) -> Flicker:
    found = {}
    for network in networks:
        label = network.spec.label
        findings = merged([chunk.states[label] for chunk in chunks]).findings() if chunks else Findings({}, {}, {})
        if not findings.counts.get("pairs"):
            raise InputError("no two frames in a row could be read: give a longer video, or more frames a photograph")
        figures = {
            name: Figure(value, findings.intervals.get(name))
            for name, value in findings.values.items()
            if math.isfinite(value)
        }
        tables: tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]] = ({}, {})
        if network.task == "detection":
            figures |= _track_figures(chunks, clips, label)
            tables = _tables(chunks, clips, label)
        found[label] = NetworkFlicker(figures, dict(findings.counts), *tables)
    about = [
        {
            "name": clip.name,
            "frames": sum(len(chunk.numbers) for chunk in chunks if chunk.clip == number),
            "known_motion": clip.shifts is not None,
            "skipped": skipped[number],
        }
        for number, clip in enumerate(clips)
    ]
    return Flicker(networks[0].task, about, found, settings, versions())


def _track_figures(chunks: Sequence[Chunk], clips: Sequence[Clip], label: str) -> dict[str, Figure]:
    metric = TrackStability(sync_on_compute=False)
    for number, clip in enumerate(clips):
        if mine := [chunk for chunk in chunks if chunk.clip == number]:
            metric.update(detections_of(mine, label), shifts_of(mine, clip), mine[0].size)
    values = {name: float(value) for name, value in metric.compute().items()}
    intervals = metric.intervals() if len(clips) > 1 else {}
    return {name: Figure(value, intervals.get(name)) for name, value in values.items() if math.isfinite(value)}


def _tables(
    chunks: Sequence[Chunk], clips: Sequence[Clip], label: str
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """The boxes matched in the next frame, by their label and by their size."""
    boxes: Counter[tuple[str, str]] = Counter()
    matched: Counter[tuple[str, str]] = Counter()
    jumps: Counter[tuple[str, str]] = Counter()
    for number, clip in enumerate(clips):
        mine = [chunk for chunk in chunks if chunk.clip == number]
        shifts = shifts_of(mine, clip) or [(0.0, 0.0)] * sum(len(chunk.numbers) for chunk in mine)
        frames = zip(detections_of(mine, label), shifts, strict=True)
        for (one, (y, x)), (other, (then_y, then_x)) in pairwise(frames):
            shift = (then_y - y, then_x - x)
            same, moved = matched_detections(one, other, shift, mine[0].size)
            boxes.update(_kinds(one.centred_in(overlap(shift, mine[0].size))))
            matched.update(_kinds(same))
            distance = (moved.centres - same.centres).norm(dim=1).tolist()
            for place, jump in enumerate(distance):
                for kind in _kinds(same.take([place])):
                    jumps[kind] += jump
    rows: dict[str, dict[str, dict[str, float]]] = {"class": {}, "size": {}}
    for (group, name), count in sorted(boxes.items()):
        rows[group][name] = {"boxes": count, "matched": matched[group, name] / count}
        if matched[group, name]:
            rows[group][name]["jump"] = jumps[group, name] / matched[group, name]
    return rows["class"], rows["size"]


def _kinds(found: Detections) -> list[tuple[str, str]]:
    sizes = [next(name for name, most in SIZES.items() if area <= most) for area in found.areas.tolist()]
    return [("class", str(name)) for name in found.labels.tolist()] + [("size", name) for name in sizes]
