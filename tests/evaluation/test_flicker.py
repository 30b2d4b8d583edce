"""Flicker on pans of known motion: exact networks are perfect, and injected faults return their closed form."""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from helpers.flickering import FRAMES, PLAIN, network, pans
from helpers.networks_of_tasks import Embedder, Painter, Points, Segmenter, SquareDetector

from dealias.errors import InputError
from dealias.evaluation.chunks import CHUNKS, read_chunks
from dealias.evaluation.clips import Clip, PanClip, Shot
from dealias.evaluation.flicker import FILES, SETTINGS, Flicker, measure_flicker, read_flicker
from dealias.evaluation.network import Network
from dealias.files import OutputFolder
from dealias.metrics.images import equivariance_psnr
from dealias.metrics.segmentation import segmentation_consistency
from dealias.report.flicker import PAGE


def measure(path: Path, networks: list[Network], clips: list[Clip], **settings: Any) -> Flicker:
    with OutputFolder(path, "flicker", writes=(*FILES, PAGE)) as folder:
        return measure_flicker(networks, clips, folder, settings)


def values(found: Flicker, label: str = "network") -> dict[str, float]:
    return {name: figure.value for name, figure in found.networks[label].figures.items()}


def test_an_exact_detector_is_perfect(tmp_path: Path) -> None:
    found = measure(tmp_path / "run", [network(SquareDetector())], [*pans(tmp_path / "photos")])
    assert values(found) == {
        **{"matched": 1.0, "iou": 1.0, "centre": 0.0, "scale": 0.0, "score": 0.0},
        **{"fragments": 0.0, "jitter": 0.0},
    }
    assert found.networks["network"].by_class == {"3": {"boxes": 24, "matched": 1.0, "jump": 0.0}}
    assert found.networks["network"].by_size == {"small": {"boxes": 24, "matched": 1.0, "jump": 0.0}}
    assert [clip["frames"] for clip in found.clips] == [FRAMES] * 3
    assert read_flicker(tmp_path / "run") == found


def test_a_corner_on_a_grid_of_two_pixels_jumps_by_the_diagonal_of_one(tmp_path: Path) -> None:
    """The window moves by one pixel on both axes; the rounded corner stays, then moves by two."""
    found = measure(tmp_path / "run", [network(SquareDetector(step=2))], [*pans(tmp_path / "photos")])
    assert values(found)["centre"] == pytest.approx(math.sqrt(2))
    # second differences of a position that alternates between 0 and 1 on both axes are 2 on each
    assert values(found)["jitter"] == pytest.approx(2 * math.sqrt(2) / (16 * math.sqrt(2)))
    assert values(found)["matched"] == 1.0


def test_frames_without_the_object_break_tracks(tmp_path: Path) -> None:
    """Dropped at every fourth column: two of nine frames in each pan."""
    found = measure(tmp_path / "run", [network(SquareDetector(drop=4))], [*pans(tmp_path / "photos", count=1)])
    columns = [25 - number for number in range(FRAMES)]
    lost = [column % 4 == 0 for column in columns]
    pairs = list(pairwise(lost))
    boxes = sum(2 - one - other for one, other in pairs)
    assert values(found)["matched"] == pytest.approx(2 * sum(not (one or other) for one, other in pairs) / boxes)
    assert values(found)["fragments"] == pytest.approx(100 * sum(lost) / FRAMES)


def test_half_pixels_are_undone_too(tmp_path: Path) -> None:
    found = measure(tmp_path / "run", [network(SquareDetector())], [*pans(tmp_path / "photos", step=0.5)])
    # at half pixels the square is found one pixel wider, on both sides of its centre
    assert values(found)["centre"] == pytest.approx(0, abs=1e-6)
    assert values(found)["scale"] == pytest.approx(2 * math.log(17 / 16))


@pytest.mark.parametrize(
    ("model", "task", "figure"),
    [
        (Segmenter, "segmentation", "pixels"),
        (Points, "keypoints", "mean"),
        (Embedder, "embeddings", "mean"),
        (Painter, "images", "psnr"),
    ],
)
def test_other_tasks_have_their_own_figures(tmp_path: Path, model: Any, task: Any, figure: str) -> None:
    found = measure(tmp_path / "run", [network(model(), task=task)], [*pans(tmp_path / "photos", count=1)])
    assert found.task == task
    assert figure in values(found)


@pytest.mark.parametrize(
    ("model", "task", "figure"), [(Segmenter, "segmentation", "pixels"), (Painter, "images", "psnr")]
)
def test_maps_are_interpolated_where_the_motion_is_not_whole(
    tmp_path: Path, model: Any, task: Any, figure: str
) -> None:
    clip, net = pans(tmp_path / "photos", 1, step=0.5)[0], model()
    found = measure(tmp_path / "run", [network(net, task=task)], [clip])
    # the same figure, from the network's answers to all frames
    with torch.no_grad():
        answers = net(torch.stack([shot.pixels for shot in clip.shots()]) / 255)
    shifts = [(-0.5, -0.5)] * (FRAMES - 1)
    if task == "segmentation":
        scores = answers["out"]
        wanted = segmentation_consistency(scores[:-1], scores[1:], shifts)[figure]
    else:
        wanted = equivariance_psnr(answers[:-1], answers[1:], shifts, data_range=float(answers.max() - answers.min()))
    assert values(found)[figure] == pytest.approx(float(wanted), rel=1e-5)


@dataclass(frozen=True)
class Damaged(PanClip):
    """A pan whose fifth frame is lost, and whose motion is not known."""

    @property
    def shifts(self) -> None:
        return None

    def shots(self) -> Iterator[Shot]:
        return (shot for shot in super().shots() if shot.number != 4)


def test_frames_on_both_sides_of_a_lost_one_are_not_compared(tmp_path: Path) -> None:
    pan = pans(tmp_path / "photos", count=1)[0]
    clip = Damaged(pan.source, pan.number, pan.preprocessing, pan.length, pan.step)
    found = measure(tmp_path / "run", [network(SquareDetector())], [clip]).networks["network"]
    assert found.counts["pairs"] == FRAMES - 3
    # the square moves by a pixel on both axes in each frame
    assert found.figures["centre"].value == pytest.approx(math.sqrt(2))
    assert found.by_class == {"3": {"boxes": FRAMES - 3, "matched": 1.0, "jump": pytest.approx(math.sqrt(2))}}


def test_an_interrupted_run_goes_on_to_the_same_results(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("dealias.evaluation.flicker.FRAMES_IN_CHUNK", 4)
    networks = [network(SquareDetector(step=2), "one"), network(SquareDetector(drop=4), "other")]
    clips: list[Clip] = [*pans(tmp_path / "photos", count=2)]
    whole = measure(tmp_path / "whole", networks, clips, seed=1)
    lines = (tmp_path / "whole" / CHUNKS).read_text().splitlines(keepends=True)
    assert len(lines) == 6
    lines[5] = lines[5][:40]  # as a killed process leaves it
    for kept in (0, 1, 2, 4, 6):
        path = tmp_path / f"run{kept}"
        with OutputFolder(path, "flicker", writes=(*FILES, PAGE)) as folder:
            folder.write(SETTINGS, '{"seed": 1}')
            folder.write(CHUNKS, "".join(lines[:kept]))
        assert measure(path, networks, clips, seed=1) == whole
        assert [*read_chunks(path)] == [*read_chunks(tmp_path / "whole")]
    with pytest.raises(InputError, match="has a run with other settings"):
        measure(tmp_path / "whole", networks, clips, seed=2)


def test_frames_in_a_batch_change_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    clips: list[Clip] = [*pans(tmp_path / "photos", count=2)]
    found = []
    for count in (1, 5, 32):
        monkeypatch.setattr("dealias.evaluation.flicker.FRAMES_IN_CHUNK", count)
        found.append(measure(tmp_path / str(count), [network(SquareDetector(step=2))], clips))
    assert found[0] == found[1] == found[2]


def test_networks_of_several_tasks_and_too_few_frames_are_refused(tmp_path: Path) -> None:
    clips: list[Clip] = [*pans(tmp_path / "photos", count=1)]
    mixed = [network(SquareDetector(), "one"), network(Segmenter(), "other", "segmentation")]
    with pytest.raises(InputError, match=r"models return different things \(detection, segmentation\)"):
        measure(tmp_path / "run", mixed, clips)
    single = [type(clips[0])(clips[0].source, 0, PLAIN, 1, (1.0, 1.0))]  # type: ignore[union-attr,arg-type]
    with pytest.raises(InputError, match="no two frames in a row could be read"):
        measure(tmp_path / "other", [network(SquareDetector())], [*single])
