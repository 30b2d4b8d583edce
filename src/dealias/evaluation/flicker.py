"""Flicker: how much of what networks return changes from frame to frame, of videos or of pans of known motion."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby, islice, pairwise
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dealias.errors import InputError
from dealias.evaluation.chunks import CHUNKS, Chunk, add_chunk, as_box, frames_of, read_chunks
from dealias.evaluation.clips import Clip, Shot
from dealias.evaluation.estimates import Figure
from dealias.evaluation.network import Network
from dealias.evaluation.snapshots import SNAPSHOTS, Draw, Snapshots
from dealias.files import OutputFolder
from dealias.metrics._overlap import overlap
from dealias.metrics.boxes import Detections
from dealias.metrics.comparisons import Comparison, Pairs, comparison_of
from dealias.metrics.detection import matched_detections
from dealias.metrics.outputs import Predictions
from dealias.metrics.tracks import TrackStability
from dealias.perturb.pans import Place
from dealias.progress import OnProgress
from dealias.records import drop_half_line, read_json
from dealias.runtime import versions

SETTINGS, RESULTS = "settings.json", "results.json"
FILES = (SETTINGS, CHUNKS, SNAPSHOTS, RESULTS)
"""What `measure_flicker` writes."""
FRAMES_IN_CHUNK = 32
SIZES = {"small": 32.0**2, "medium": 96.0**2, "large": math.inf}
"""Largest area, in pixels, of COCO's sizes of objects."""


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
    draw: Draw | None = None,
    on_progress: OnProgress = lambda stage, done: None,
) -> Flicker:
    """Show the frames of clips to networks, and measure how much their answers change from one frame to the next.

    The displacement of the scene is undone where it is known: answers are compared on the part that both frames show.
    Chunks that the folder already has are not measured again. Boxes are kept on disk: memory has a few numbers for each
    frame, not more.

    Args:
        networks: of one task, with labels of their own.
        clips: of `dealias.evaluation.clips`.
        folder: open, to write `FILES` into.
        settings: all on which the answers depend, as JSON.
        draw: makes the pictures of some frames, for `dealias.evaluation.snapshots`; by default there are none.
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
    drop_half_line(folder.path / CHUNKS)
    done = {chunk.clip: chunk.stop for chunk in read_chunks(folder.path)}
    snapshots = Snapshots(folder, clips)
    skipped: dict[int, list[Any]] = {}
    for number, clip in enumerate(clips):
        keep = _Keeper(number, snapshots, draw)
        for chunk in _measure_clip(number, clip, networks, done.get(number, 0), keep):
            add_chunk(folder, chunk)
            share = min(chunk.stop / clip.length, 1.0) if clip.length else 0.5
            on_progress(clip.name, 0.95 * (number + share) / len(clips))
        skipped[number] = [list(each) for each in clip.skipped]
    results = _summarise(folder.path, clips, skipped, networks, wanted)
    folder.write(RESULTS, json.dumps(asdict(results), indent=1) + "\n")
    return results


def read_flicker(folder: str | Path) -> Flicker:
    """The results in the folder of a run.

    Raises:
        InputError: there are none, or they are damaged.
    """
    return read_json(Flicker, Path(folder) / RESULTS)


def detections_by_clip(
    folder: str | Path, label: str
) -> Iterator[tuple[int, tuple[int, int], Iterator[tuple[int, Detections]]]]:
    """Each clip's number, the size of its frames, and their numbers and a network's detections; read clip by clip."""
    for (number, size), chunks in groupby(read_chunks(folder), key=lambda chunk: (chunk.clip, chunk.size)):
        yield number, size, frames_of(chunks, label)


@dataclass(frozen=True)
class _Keeper:
    """Draws the frames of a clip that are to be kept."""

    clip: int
    snapshots: Snapshots
    draw: Draw | None

    def keep(self, place: int, shot: Shot, answers: Sequence[Predictions]) -> None:
        """Draw the networks' answers to a frame, if it is one of those."""
        if self.draw is not None and self.snapshots.takes(self.clip, place, place + 1):
            pictures = [self.draw(shot.pixels, answer) for answer in answers]
            self.snapshots.add(self.clip, place, shot.number, pictures)


@dataclass
class _Watch:
    """Compares a network's answers to the frames of a clip, each with the one before."""

    number: int
    clip: Clip
    comparison: Comparison | None = None
    boxes: list[Any] = field(default_factory=list)
    before: tuple[Shot, Predictions] | None = None

    def add(self, shot: Shot, answer: Predictions) -> None:
        """The next frame; a skipped frame between two ends the row."""
        self.comparison = self.comparison or comparison_of(answer.task)
        self.boxes += [as_box(each) for each in answer.values if isinstance(each, Detections)]
        if self.before is not None and shot.number == self.before[0].number + 1:
            last, then = self.before
            shift = _motion(self.clip, last.number, shot.number)
            height, width = shot.pixels.shape[1:]
            # a video is one scene: its chunks stand for images in the intervals
            image = self.number if self.clip.shifts is not None else last.number // FRAMES_IN_CHUNK
            values = Predictions.joined([then, answer]).values
            self.comparison.compare(values, Pairs(image, [(0, 1)], [shift], (height, width)))
        self.before = (shot, answer)

    def take(self) -> tuple[dict[str, Any], list[Any]]:
        """The state of the comparison and the boxes since the last call."""
        assert self.comparison is not None
        found = self.comparison.state(), self.boxes
        self.comparison, self.boxes = None, []
        return found


def _motion(clip: Clip, last: int, then: int) -> Place:
    """The displacement (dy, dx) of the scene from one frame to another; none where it is not known."""
    if clip.shifts is None:
        return 0.0, 0.0
    (y, x), (then_y, then_x) = clip.shifts[last], clip.shifts[then]
    return then_y - y, then_x - x


def _measure_clip(number: int, clip: Clip, networks: Sequence[Network], after: int, keeper: _Keeper) -> Iterator[Chunk]:
    """The chunks from the shot `after` on; the shot before it is seen again, to compare the next one with."""
    shots = islice(enumerate(clip.shots()), max(after - 1, 0), None)
    watches = {network.spec.label: _Watch(number, clip) for network in networks}
    # scores are interpolated where the motion is not whole
    compact = all(part == round(part) for shift in clip.shifts or () for part in shift)
    if after:
        _, shot = next(shots, (0, None))
        if shot is None:
            return
        for network in networks:
            watches[network.spec.label].before = (shot, network.answers(shot.pixels[None], compact=compact))
    in_batch = min(max(network.batch_size for network in networks), FRAMES_IN_CHUNK)
    while part := list(islice(shots, FRAMES_IN_CHUNK)):
        for start in range(0, len(part), in_batch):
            batch = part[start : start + in_batch]
            answers = _answers(networks, torch.stack([shot.pixels for _, shot in batch]), compact)
            for row, (place, shot) in enumerate(batch):
                told = [each.single(row) for each in answers]
                for network, answer in zip(networks, told, strict=True):
                    watches[network.spec.label].add(shot, answer)
                keeper.keep(place, shot, told)
        taken = {label: watch.take() for label, watch in watches.items()}
        states = {label: state for label, (state, _) in taken.items()}
        boxes = {label: found for label, (_, found) in taken.items()}
        height, width = part[0][1].pixels.shape[1:]
        numbers = [shot.number for _, shot in part]
        yield Chunk(number, part[0][0], part[-1][0] + 1, numbers, (height, width), states, boxes)


def _answers(networks: Sequence[Network], frames: Tensor, compact: bool) -> list[Predictions]:
    """The networks' answers to frames, which are normalised once for networks that take them alike."""
    seen: dict[Any, Tensor] = {}
    answers = []
    for network in networks:
        key = network.preprocessing, network.device
        if key not in seen:
            seen[key] = network.see(frames.to(network.device))
        answers.append(network.answers(seen[key], compact=compact))
    return answers


def _summarise(
    folder: Path,
    clips: Sequence[Clip],
    skipped: Mapping[int, list[Any]],
    networks: Sequence[Network],
    settings: dict[str, Any],
) -> Flicker:
    found = {}
    frames: Counter[int] = Counter()
    comparisons: dict[str, Comparison] = {}
    for chunk in read_chunks(folder):
        frames[chunk.clip] += len(chunk.numbers)
        for label, state in chunk.states.items():
            if label not in comparisons:
                comparisons[label] = comparison_of(state["task"])
            comparisons[label].restore(state)
    if not comparisons or not all(comparison.metrics[""].rows for comparison in comparisons.values()):
        raise InputError("no two frames in a row could be read: give a longer video, or more frames a photograph")
    for label, comparison in comparisons.items():
        findings = comparison.findings()
        figures = {
            name: Figure(value, findings.intervals.get(name))
            for name, value in findings.values.items()
            if math.isfinite(value)
        }
        tables: tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]] = ({}, {})
        if comparison.task == "detection":
            figures |= _track_figures(folder, clips, label)
            tables = _tables(folder, clips, label)
        found[label] = NetworkFlicker(figures, dict(findings.counts), *tables)
    about = [
        {
            "name": clip.name,
            "frames": frames[number],
            "known_motion": clip.shifts is not None,
            "skipped": skipped[number],
        }
        for number, clip in enumerate(clips)
    ]
    return Flicker(networks[0].task, about, found, settings, versions())


def _track_figures(folder: Path, clips: Sequence[Clip], label: str) -> dict[str, Figure]:
    metric = TrackStability(sync_on_compute=False)
    for number, size, frames in detections_by_clip(folder, label):
        metric.update((found for _, found in frames), clips[number].shifts, size)
    values = {name: float(value) for name, value in metric.compute().items()}
    intervals = metric.intervals() if len(clips) > 1 else {}
    return {name: Figure(value, intervals.get(name)) for name, value in values.items() if math.isfinite(value)}


def _tables(
    folder: Path, clips: Sequence[Clip], label: str
) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
    """The boxes matched in the next frame, by their label and by their size."""
    boxes: Counter[tuple[str, str]] = Counter()
    matched: Counter[tuple[str, str]] = Counter()
    jumps: Counter[tuple[str, str]] = Counter()
    for number, size, frames in detections_by_clip(folder, label):
        for (last, one), (then, other) in pairwise(frames):
            if then != last + 1:  # a frame between them was skipped
                continue
            shift = _motion(clips[number], last, then)
            same, moved = matched_detections(one, other, shift, size)
            boxes.update(_kinds(one.centred_in(overlap(shift, size))))
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
