"""Chunks on disk: they come back as they were, and half a line is dropped."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from dealias.errors import InputError
from dealias.evaluation.chunks import CHUNKS, Chunk, add_chunk, as_box, frames_of, read_chunks
from dealias.files import OutputFolder
from dealias.metrics.boxes import Detections
from dealias.records import drop_half_line

CHUNK = Chunk(0, 0, 2, [4, 5], (6, 8), {"net": {"task": "classes", "metrics": {}}}, {"net": []})
CHUNKS_HELD = [replace(CHUNK, start=start, numbers=[start, start + 1]) for start in range(3)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with three chunks."""
    with OutputFolder(tmp_path / "run", "flicker", writes=(CHUNKS,)) as opened:
        for chunk in CHUNKS_HELD:
            add_chunk(opened, chunk)
    return tmp_path / "run"


def test_chunks_come_back_in_order(folder: Path, tmp_path: Path) -> None:
    assert [*read_chunks(folder)] == CHUNKS_HELD
    assert [*read_chunks(tmp_path)] == []
    drop_half_line(tmp_path / CHUNKS)
    assert not (tmp_path / CHUNKS).exists()


def test_of_a_killed_process_the_whole_lines_stay(folder: Path) -> None:
    path = folder / CHUNKS
    whole = path.read_bytes()
    ends = [place + 1 for place, letter in enumerate(whole) if letter == ord("\n")]
    assert len(ends) == 3
    for stop in {*range(0, len(whole), 11), *ends, *(end - 1 for end in ends)}:
        path.write_bytes(whole[:stop])
        drop_half_line(path)
        assert path.read_bytes() == whole[: max([0, *(end for end in ends if end <= stop)])]
    # what is added then is a line of its own
    path.write_bytes(whole[:-3])
    drop_half_line(path)
    with OutputFolder(folder, "flicker", writes=(CHUNKS,)) as opened:
        add_chunk(opened, CHUNKS_HELD[2])
    assert path.read_bytes() == whole


def test_a_line_that_is_no_chunk_is_named(folder: Path) -> None:
    lines = (folder / CHUNKS).read_text().splitlines()
    (folder / CHUNKS).write_text(f"{lines[0]}\n{lines[1].replace('clip', 'clop')}\n")
    with pytest.raises(InputError, match=r"chunks\.jsonl, line 2' lacks the key clip"):
        [*read_chunks(folder)]


def test_detections_come_back_to_a_thousandth_of_a_pixel(tmp_path: Path) -> None:
    generator = np.random.default_rng(0)
    frames = []
    for count, points in ((5, True), (0, False), (3, False), (0, True)):
        corners = generator.uniform(0, 500, (count, 2))
        entries = {"boxes": np.concatenate([corners, corners + 20], 1), "scores": generator.uniform(size=count)}
        entries |= {"labels": generator.integers(0, 90, count), "masks": np.ones((count, 6, 8))}
        if points:
            entries["keypoints"] = generator.uniform(0, 500, (count, 4, 2))
        found = Detections.of("x", entries)
        if found.points is not None and count:
            found.points[1, 2] = torch.nan
        frames.append(found)
    boxes = {"net": [as_box(found) for found in frames]}
    with OutputFolder(tmp_path / "run", "flicker", writes=(CHUNKS,)) as opened:
        add_chunk(opened, replace(CHUNK, numbers=[0], boxes={"net": boxes["net"][:1]}))
        add_chunk(opened, replace(CHUNK, numbers=[2, 3, 4], boxes={"net": boxes["net"][1:]}))
    numbers, back = zip(*frames_of(read_chunks(tmp_path / "run"), "net"), strict=True)
    assert numbers == (0, 2, 3, 4)
    for found, kept in zip(frames, back, strict=True):
        assert kept.masks is None
        assert torch.equal(kept.labels, found.labels)
        assert kept.boxes.shape == found.boxes.shape
        torch.testing.assert_close(kept.boxes, found.boxes, atol=0.0005001, rtol=0)
        torch.testing.assert_close(kept.scores, found.scores, atol=0.000005001, rtol=0)
    points = back[0].points
    assert points is not None
    torch.testing.assert_close(points, frames[0].points, atol=0.0005001, rtol=0, equal_nan=True)
    assert points.isnan().sum() == 2
    assert [each.points for each in back[1:]] == [None] * 3
