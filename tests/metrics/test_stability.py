"""`measure_stability` of toy networks whose stability is known, on all kinds of shifts and images."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from PIL import Image
from torch import Tensor, nn

from dealias.errors import InputError, InputTypeError
from dealias.metrics import TrackStability, measure_consistency, measure_stability, stability
from dealias.metrics.comparisons import Pairs, comparison_of
from dealias.metrics.outputs import recognise
from dealias.metrics.stability import Stability
from dealias.metrics.views import make_views
from dealias.models import vgg_small
from dealias.perturb import slide

HEIGHT, WIDTH = 48, 64
VIEWS = [
    "zero_fill",
    "circular",
    make_views("crop", crop_size=36, image_size=48),
    make_views("grid", crop_size=40, image_size=48),
]


def scenes(count: int, seed: int = 0) -> Tensor:
    """Images (N, 1, H, W) with five bright pixels each, of five different values, apart from one another."""
    generator = torch.Generator().manual_seed(seed)
    images = torch.zeros(count, 1, HEIGHT, WIDTH)
    for image in images:
        places = torch.randperm(12, generator=generator)[:5]
        for number, place in enumerate(places.tolist()):
            y, x = 10 + 13 * (place // 4), 9 + 14 * (place % 4)
            image[0, y + int(torch.randint(-2, 3, (), generator=generator)), x] = 0.5 + 0.1 * number
    return images


def marks(image: Tensor) -> list[tuple[int, int, float]]:
    """Row, column and value of the bright pixels."""
    return [(y, x, float(image[0, y, x])) for y, x in (image[0] > 0.4).nonzero().tolist()]


def same(one: Stability, other: Stability) -> bool:
    """Whether all is equal, to the last bit."""
    return repr(one) == repr(other)  # NaN is not equal to itself


class Detector(nn.Module):
    """A box, a mask and two key points around each bright pixel; what is added to them is drawn at random."""

    def __init__(self, noise: float = 0.0, dropout: float = 0.0, relabelled: float = 0.0) -> None:
        super().__init__()
        self.noise, self.dropout, self.relabelled = noise, dropout, relabelled
        self.draw = np.random.default_rng(0)

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        return [self.detect(image) for image in images]

    def detect(self, image: Tensor) -> dict[str, Tensor]:
        boxes, labels, scores, masks, points = [], [], [], [], []
        for y, x, value in marks(image):
            dx, dy = self.draw.normal(0, self.noise, 2) if self.noise else (0.0, 0.0)
            if self.draw.uniform() < self.dropout:
                continue
            boxes.append([x - 5 + dx, y - 4 + dy, x + 5 + dx, y + 4 + dy])
            labels.append(round(value * 10) + 100 * (self.draw.uniform() < self.relabelled))
            scores.append(value)
            masks.append((image[0] == value)[None])
            points.append([[x + dx, y + dy], [x - 1 + dx, y + dy]])
        count = len(boxes)
        return {
            "boxes": torch.tensor(boxes).reshape(count, 4),
            "labels": torch.tensor(labels, dtype=torch.long),
            "scores": torch.tensor(scores),
            "masks": torch.stack(masks).float() if masks else torch.zeros(0, 1, *image.shape[1:]),
            "keypoints": torch.tensor(points).reshape(count, 2, 2),
        }


class Segmenter(nn.Module):
    """Scores of three classes at each pixel, from that pixel alone."""

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        return {"out": torch.cat([images, (images - 0.7).abs(), 0.3 - images], 1)}


class Points(nn.Module):
    """The place of the brightest pixel and of the one on its right."""

    def forward(self, images: Tensor) -> Tensor:
        place = images[:, 0].flatten(1).argmax(1)
        point = torch.stack([place % images.shape[3], place // images.shape[3]], 1).double()
        return torch.stack([point, point + torch.tensor([1.0, 0.0])], 1)


class Enlarged(nn.Module):
    """An image of twice the size."""

    def forward(self, images: Tensor) -> Tensor:
        return images.repeat_interleave(2, 2).repeat_interleave(2, 3)


PERFECT: list[tuple[nn.Module, str, dict[str, float]]] = [
    (
        Detector(),
        "detection",
        {"matched": 1, "iou": 1, "centre": 0, "scale": 0, "score": 0, "mask_iou": 1, "point_largest": 0},
    ),
    (Segmenter(), "segmentation", {"pixels": 1, "iou": 1}),
    (Points(), "keypoints", {"mean": 0, "largest": 0}),
    (Enlarged(), "images", {"psnr": math.inf}),
]


@pytest.mark.parametrize("views", VIEWS)
@pytest.mark.parametrize(("network", "task", "expected"), PERFECT)
def test_equivariant_networks_are_perfect(
    network: nn.Module, task: str, expected: dict[str, float], views: Any
) -> None:
    found = measure_stability(network, scenes(3), views=views)
    assert found.task == task
    assert {name: found.values[name] for name in expected} == pytest.approx(expected, abs=1e-5)
    assert found.images == 3
    assert task in str(found)


@pytest.mark.parametrize(("network", "task", "expected"), PERFECT)
def test_equivariant_networks_are_perfect_on_pans(network: nn.Module, task: str, expected: Any) -> None:
    pan = slide(scenes(1, seed=5)[0], (36, 50), frames=9, step=(1, -1))
    comparison = comparison_of(task)  # type: ignore[arg-type]
    answers = recognise(network(torch.stack([*pan])), count=9, size=pan.size, channels=1)
    steps = [(b[0] - a[0], b[1] - a[1]) for a, b in pairwise(pan.shifts)]
    comparison.compare(answers.values, Pairs(0, [*pairwise(range(9))], steps, pan.size))
    found = comparison.findings().values
    assert {name: found[name] for name in expected} == pytest.approx(expected, abs=1e-5)
    if task == "detection":
        metric = TrackStability()
        metric.update(answers.values, pan.shifts, pan.size)
        assert metric.compute() == {"fragments": 0, "jitter": 0}


def test_a_detector_with_known_jitter_gives_the_closed_form() -> None:
    noise, dropout, relabelled = 0.5, 0.1, 0.05
    found = measure_stability(Detector(noise, dropout, relabelled), scenes(60), views="circular", level=0.99)
    expected = {
        "matched": (1 - dropout) * (relabelled**2 + (1 - relabelled) ** 2),
        "centre": noise * math.sqrt(math.pi),
        "point_mean": noise * math.sqrt(math.pi),
        "point_mean_relative": noise * math.sqrt(math.pi) / math.hypot(10, 8),
    }
    for name, value in expected.items():
        low, high = found.intervals[name]
        assert low < value < high
        assert high - low < 0.2 * value
    assert found.counts["pairs"] == 300


def test_classes_are_those_of_measure_consistency() -> None:
    torch.manual_seed(0)
    network, images = vgg_small().train(), torch.rand(12, 1, 32, 32)
    found = measure_stability(network, images, views="circular", seed=3)
    expected = measure_consistency(network, images, mode="circular", seed=3)
    assert found.values == pytest.approx({"consistency": expected.consistency, "unanimity": expected.unanimity})
    assert found.intervals["consistency"] == pytest.approx(expected.interval)
    assert found.intervals["unanimity"] == pytest.approx(expected.unanimity_interval)
    assert network.training


def test_embeddings_can_be_told() -> None:
    torch.manual_seed(0)
    images = torch.rand(4, 1, 32, 32)
    found = measure_stability(vgg_small(), images, task="embeddings", views="zero_fill")
    assert 0 < found.values["mean"] < found.values["largest"] < 2
    assert measure_stability(lambda x: x.mean((2, 3)), images, task="embeddings").values["mean"] == pytest.approx(
        0, abs=1e-9
    )


def test_the_result_does_not_depend_on_batches_or_on_how_images_come() -> None:
    images = scenes(7)
    for network in (Detector(), Segmenter(), Points(), Enlarged(), nn.Conv2d(1, 3, 5)):
        whole = measure_stability(network, images, seed=1, batch_size=64)
        assert same(measure_stability(network, images, seed=1, batch_size=1), whole)
        assert same(measure_stability(network, iter(images), seed=1), whole)
        batches = [(images[:3], torch.zeros(3)), (images[3:], torch.zeros(4))]
        assert same(measure_stability(network, batches, seed=1, batch_size=13), whole)


def test_images_of_changing_size() -> None:
    images = [*scenes(2), torch.nn.functional.pad(scenes(1, seed=1), (0, 9, 3, 0))[0], *scenes(2, seed=2)]
    steps: list[int] = []
    found = measure_stability(Detector(), iter(images), progress=steps.append)
    assert found.values["matched"] == 1
    assert found.images == steps[-1] == 5


class _ReachedError(Exception):
    """Carries what a process hands to the others."""


@contextmanager
def as_process(monkeypatch: pytest.MonkeyPatch, rank: int, gather: Callable[[list[Any], Any], None]) -> Iterator[None]:
    @contextmanager
    def group() -> Iterator[tuple[int, int]]:
        yield rank, 2

    with monkeypatch.context() as patch:
        patch.setattr(stability, "process_group", group)
        patch.setattr(dist, "all_gather_object", gather)
        yield


@pytest.mark.parametrize("count", [1, 5])
@pytest.mark.filterwarnings("error")
def test_processes_share_the_images(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    states: list[Any] = []

    def collect(found: list[Any], state: Any) -> None:
        states.append(state)
        raise _ReachedError

    def fill(found: list[Any], state: Any) -> None:
        found[:] = states

    for network in (Detector(), Segmenter(), Points(), Enlarged()):
        states.clear()
        for rank in (0, 1):
            with as_process(monkeypatch, rank, collect), pytest.raises(_ReachedError):
                measure_stability(network, scenes(count))
        with as_process(monkeypatch, 1, fill):
            together = measure_stability(network, scenes(count))
        assert same(together, measure_stability(network, scenes(count)))


def test_pipelines_take_uint8_pictures() -> None:
    pixels = (scenes(3) * 255).byte().expand(-1, 3, -1, -1)
    arrays = pixels.movedim(1, -1).numpy()
    seen: list[Any] = []

    def predict(picture: Any) -> tuple[Any, ...]:
        """As MTCNN.detect."""
        seen.append(picture)
        rows = [[x - 5, y - 5, x + 5, y + 5] for y, x in zip(*np.nonzero(picture[..., 0] > 100), strict=True)]
        if not rows:
            return None, [None], None
        boxes = np.array(rows, dtype=object)
        return boxes, np.ones(len(boxes), dtype=object), np.array([[row[:2]] * 5 for row in rows], dtype=object)

    whole = measure_stability(None, pixels, predict=predict)
    assert whole.task == "detection"
    assert whole.values["matched"] == whole.values["iou"] == 1
    assert whole.values["point_largest"] == 0
    assert (seen[0].dtype, seen[0].shape) == (np.uint8, (HEIGHT, WIDTH, 3))
    for images in (arrays, [*arrays], [Image.fromarray(array) for array in arrays], iter(pixels)):
        assert same(measure_stability(None, images, predict=predict), whole)
    nothing = measure_stability(None, np.zeros((2, 40, 40, 3), np.uint8), predict=predict)
    assert math.isnan(nothing.values["matched"])
    assert nothing.counts["empty"] == nothing.counts["pairs"] == 10


def test_boxes_with_nan_are_counted() -> None:
    def broken(images: Tensor) -> list[dict[str, Tensor]]:
        return [
            {"boxes": torch.ones(1, 4), "labels": torch.ones(1), "scores": torch.tensor([torch.nan])} for _ in images
        ]

    found = measure_stability(broken, scenes(2))
    assert found.counts["invalid"] == 2 * found.counts["pairs"] == 20


def test_scores_with_nan_are_no_prediction() -> None:
    found = measure_stability(lambda images: torch.full((len(images), 3), torch.nan), scenes(2))
    assert found.values["consistency"] == 0
    assert found.counts["invalid"] == 20


class YOLO:
    """As ultralytics' pipeline."""

    def __call__(self, images: Any) -> None:
        raise AssertionError


YOLO.__module__ = "ultralytics.engine.model"


def test_bad_input() -> None:
    images, network = scenes(2), Segmenter()
    pictures = np.zeros((1, 40, 40, 3), np.uint8)
    bad: list[tuple[dict[str, Any], type[InputError], str]] = [
        ({"model": None}, InputTypeError, "model=None"),
        ({"model": YOLO()}, InputError, "give its network, model.model, or predict="),
        ({"model": lambda x: None}, InputError, "NoneType"),
        ({"images": None}, InputTypeError, "images"),
        ({"images": []}, InputError, "images is empty"),
        ({"images": images.byte()}, InputTypeError, "uint8"),
        ({"images": images[0, 0]}, InputError, "images of shape"),
        ({"images": ["a.jpg"]}, InputTypeError, "got str"),
        ({"task": "boxes"}, InputError, "task='boxes'"),
        ({"task": "detection"}, InputError, "not of task=.detection."),
        ({"views": "left"}, InputError, "mode='left'"),
        ({"views": "fractional"}, InputError, "whole pixels"),
        ({"seed": -1}, InputError, "seed"),
        ({"batch_size": 0}, InputError, "batch_size"),
        ({"level": 1}, InputError, "level"),
        ({"predict": 3, "images": pictures}, InputTypeError, "predict"),
        ({"predict": len}, InputTypeError, "predict= takes uint8 pictures"),
        ({"predict": len, "images": ["a.jpg"]}, InputTypeError, "uint8|got str"),
        ({"predict": len, "images": pictures[..., :2]}, InputError, "images of shape"),
        ({"predict": len, "images": pictures}, InputError, "builtins.int"),
    ]
    for arguments, kind, message in bad:
        with pytest.raises(kind, match=message):
            measure_stability(**({"model": network, "images": images} | arguments))


def test_the_table_names_values_intervals_and_counts() -> None:
    text = str(
        Stability("detection", "circular", "up to 3", 4, {"matched": 0.5}, {"matched": (0.4, 0.6)}, {"pairs": 20})
    )
    assert text.splitlines() == [
        "detection, 4 images, circular shifts up to 3",
        "  matched 0.5  [0.4, 0.6]",
        "  (20 pairs)",
    ]
