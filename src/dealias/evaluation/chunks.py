"""The chunks of a flicker measurement: frames in a row, measured; kept on disk, so that memory stays the same."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from dealias.files import OutputFolder
from dealias.metrics.boxes import Detections
from dealias.records import iterate_json_lines

CHUNKS = "chunks.jsonl"

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


def read_chunks(folder: str | Path) -> Iterator[Chunk]:
    """The chunks measured so far, in order, one by one; none where no measurement has begun."""
    path = Path(folder) / CHUNKS
    return iterate_json_lines(Chunk, path) if path.exists() else iter(())


def add_chunk(folder: OutputFolder, chunk: Chunk) -> None:
    """Add a chunk to those in the open folder."""
    with folder.own(CHUNKS).open("a", encoding="utf-8") as file:
        file.write(json.dumps(vars(chunk), separators=(",", ":")) + "\n")


def frames_of(chunks: Iterable[Chunk], label: str) -> Iterator[tuple[int, Detections]]:
    """The number of each frame in its clip, and the detections of a network in it."""
    for chunk in chunks:
        yield from zip(chunk.numbers, map(_detections, chunk.boxes[label]), strict=True)


def as_box(found: Detections) -> Box:
    """Detections as they are kept: without masks."""
    box: Box = {
        "boxes": [[round(part, 3) for part in each] for each in found.boxes.tolist()],
        "scores": [round(score, 5) for score in found.scores.tolist()],
        "labels": found.labels.tolist(),
    }
    if found.points is not None:
        box["points"] = [
            [None if math.isnan(part) else round(part, 3) for part in each] for each in found.points.flatten(1).tolist()
        ]
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
