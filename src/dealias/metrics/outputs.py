"""Recognise what a network returns, and bring it into one form for each task.

>>> found = recognise({"out": torch.rand(2, 21, 8, 8)}, count=2, size=(32, 32))
>>> found.task, found.values.shape
('segmentation', torch.Size([2, 21, 32, 32]))
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast, get_args

import torch
import torch.nn.functional as F
from torch import Tensor

from dealias.errors import InputError, printable, shown
from dealias.metrics.boxes import Detections
from dealias.metrics.pipelines import read_pipeline
from dealias.metrics.raw_detections import decode_detr, decode_yolo
from dealias.metrics.segmentation import class_map

Task: TypeAlias = Literal["classes", "detection", "segmentation", "keypoints", "embeddings", "images"]
TASKS: tuple[Task, ...] = get_args(Task)
AnyTask: TypeAlias = Task | Literal["auto"]


@dataclass(frozen=True, eq=False)
class Predictions:
    """A network's answers to the images of a batch, as metrics take them.

    Attributes:
        task: which of `TASKS`.
        values: for each image one: "classes": scores (N, C), or classes, integer (N,); "detection": a list of
            `Detections` in pixels of the input; "segmentation": class scores (N, C, H, W), or classes (N, H, W), as
            large as the input; "keypoints": (N, K, 2), x and y in pixels of the input; "embeddings": (N, D); "images":
            (N, C, h, w), as large as the input or several times as large.
    """

    task: Task
    values: Tensor | list[Detections]

    def __len__(self) -> int:
        return len(self.values)

    def single(self, place: int) -> Predictions:
        """The answer to one image of the batch."""
        return Predictions(self.task, self.values[place : place + 1])

    def compact(self) -> Predictions:
        """The classes of each pixel in place of their scores, which are many times as large; -1 where one is NaN."""
        if self.task != "segmentation" or not isinstance(self.values, Tensor):
            return self
        return Predictions(self.task, class_map("the model's output", self.values))

    @classmethod
    def joined(cls, parts: Sequence[Predictions]) -> Predictions:
        """Those of several batches as one.

        Raises:
            InputError: they are of different tasks.
        """
        tasks = dict.fromkeys(part.task for part in parts)
        if len(tasks) > 1:
            raise InputError(f"the model returns {' for some images and '.join(tasks)} for others: give task=")
        if parts[0].task == "detection":
            return cls("detection", [one for part in parts for one in part.values])
        return cls(parts[0].task, torch.cat([part.values for part in parts if isinstance(part.values, Tensor)]))


@dataclass(frozen=True, eq=False)
class _Asked:
    """What is known of an output; the arguments of `recognise`."""

    count: int
    size: tuple[int, int]
    channels: int
    task: AnyTask
    model: Any
    least_score: float | None

    def allows(self, task: Task) -> bool:
        return self.task in ("auto", task)


def recognise(
    output: Any,
    *,
    count: int,
    size: tuple[int, int],
    channels: int = 3,
    task: AnyTask = "auto",
    model: Any = None,
    least_score: float | None = None,
) -> Predictions:
    """Bring the output of a network or of a pipeline into the form that `Predictions` describes.

    Known are tensors and arrays; detections of torchvision (lists of dictionaries with boxes, labels, scores, masks,
    keypoints), of ultralytics (`Results`, and the raw tensors of its networks), of supervision and of facenet-pytorch's
    MTCNN; torchvision's segmentations; and the outputs of transformers. Tensors mean:
        (N, C): class scores; embeddings where every row has length 1.
        (N,): classes, integer.
        (N, C, h, w): images where C is the number of the input's channels and the map is as large as the input or
            several times as large; otherwise class scores.
        (N, h, w): classes where it is integer or bool, otherwise images of one channel.
        (N, K, 2): key points.
    `task` overrides: with "embeddings" a tensor (N, ...) is flattened, with "keypoints" the maps (N, K, h, w) are heat
    maps, whose maxima are taken, and with "segmentation" a map of one channel is foreground where it is positive.

    Args:
        output: of the network for a batch.
        count: N, the number of images in the batch.
        size: (height, width) of the input.
        channels: of the input.
        task: one of `TASKS`, or "auto".
        model: the network, from which the number of classes of ultralytics' raw tensors is read.
        least_score: detections with a lower score are left out. By default all that pipelines return are kept; of raw
            tensors those from ultralytics' own threshold, .25, and transformers' own, .5.

    Raises:
        InputError: the output is not recognised, or is not of the task.
    """
    asked = _Asked(count, size, channels, check_task(task), model, least_score)
    for read in _READERS:
        found = read(output, asked)
        if found is not None and asked.allows(found.task) and len(found) == count:
            return _filtered(found, least_score)
    raise InputError(_unknown(output, asked))


def check_task(task: str) -> AnyTask:
    """`task`, if it is one of `TASKS` or "auto".

    Raises:
        InputError: it is not.
    """
    for known in (*TASKS, "auto"):
        if task == known:
            return cast(AnyTask, known)
    raise InputError(f"task={shown(task)} is unknown: use auto, {', '.join(TASKS[:-1])} or {TASKS[-1]}")


def describe(output: Any) -> str:
    """An output in a few words."""
    if isinstance(output, Tensor) or hasattr(output, "shape"):
        return f"{type(output).__name__} {tuple(output.shape)} of {str(output.dtype).removeprefix('torch.')}"
    if isinstance(output, Mapping):
        keys = ", ".join(str(key) for key in output)
        return f"{type(output).__name__} with the keys {keys}" if keys else f"empty {type(output).__name__}"
    if isinstance(output, list | tuple):
        parts = [describe(part) for part in output[:2]] + ["..."] * (len(output) > 2)
        return f"{type(output).__name__} of {len(output)} ({', '.join(parts)})"
    return f"{type(output).__module__}.{type(output).__qualname__}"


def _unknown(output: Any, asked: _Asked) -> str:
    text = printable(describe(output))
    text = text if len(text) <= 160 else f"{text[:156]} ..."
    start = f"the model returned {text} for {asked.count} images of {asked.size[0]}x{asked.size[1]}"
    if asked.task != "auto":
        return f"{start}, which is not of task={asked.task!r}: use another of {', '.join(TASKS)}"
    return (
        f"{start}, which is not recognised: say what it is by task= ({', '.join(TASKS)}), or give predict=, a function "
        "of one uint8 picture that returns detections in torchvision's format"
    )


def _read_pipeline(output: Any, asked: _Asked) -> Predictions | None:
    found = read_pipeline(output, asked.count, asked.size)
    if found is None:
        return None
    return Predictions("detection" if isinstance(found, list) else "classes", found)


def _read_mapping(output: Any, asked: _Asked) -> Predictions | None:
    """torchvision's segmentations and transformers' outputs."""
    if not isinstance(output, Mapping):
        return None
    if "pred_boxes" in output and "logits" in output:
        return Predictions("detection", decode_detr(output, asked.size, asked.least_score))
    if "masks_queries_logits" in output and "class_queries_logits" in output:
        # as transformers: the classes' probabilities, without the last, which is no object, weigh the masks
        weights = output["class_queries_logits"].softmax(-1)[..., :-1]
        scores = torch.einsum("nqc,nqhw->nchw", weights, output["masks_queries_logits"].sigmoid())
        return _read_tensor(scores, asked, "segmentation")
    for key, task in _ENTRIES:
        value = output.get(key)
        if isinstance(value, Tensor):
            if key == "last_hidden_state" and value.ndim == 3:
                value = value[:, 0]  # the class token
            if task != "classes":
                return _read_tensor(value, asked, task)
            return _read_tensor(value, asked, "classes" if value.ndim == 2 else "segmentation")
    return None


_ENTRIES: tuple[tuple[str, Task], ...] = (
    ("out", "segmentation"),
    ("heatmaps", "keypoints"),
    ("logits", "classes"),
    ("reconstruction", "images"),
    ("predicted_depth", "images"),
    ("image_embeds", "embeddings"),
    ("pooler_output", "embeddings"),
    ("last_hidden_state", "embeddings"),
)
"""Entries of dictionaries and their tasks; the first one found counts."""


def _read_raw(output: Any, asked: _Asked) -> Predictions | None:
    """The raw tensors of ultralytics' networks."""
    if not asked.allows("detection"):
        return None
    found = decode_yolo(output, asked.size, asked.model, asked.least_score)
    return None if found is None else Predictions("detection", found)


def _read_plain(output: Any, asked: _Asked) -> Predictions | None:
    """A tensor; where the task is told, also the first tensor in a tuple or dictionary that can be of that task."""
    if not isinstance(output, Mapping | list | tuple):
        return _read_tensor(output, asked, asked.task)
    parts = list(output.values() if isinstance(output, Mapping) else output)
    if asked.task == "auto":
        # ultralytics' classifiers return the probabilities and the logits
        twins = len(parts) == 2 and all(isinstance(part, Tensor) and part.ndim == 2 for part in parts)
        return _read_tensor(parts[0], asked, "classes") if twins and parts[0].shape == parts[1].shape else None
    found = (_read_tensor(part, asked, asked.task) for part in parts)
    return next((each for each in found if each is not None), None)


def _read_tensor(value: Any, asked: _Asked, task: AnyTask) -> Predictions | None:
    """A tensor (N, ...) as that task; None where it cannot be one."""
    if hasattr(value, "__array__") and not isinstance(value, Tensor):
        value = torch.as_tensor(value)
    if not isinstance(value, Tensor) or not value.ndim or len(value) != asked.count or value.is_complex():
        return None
    kind = _guess(value, asked) if task == "auto" else task
    if kind is None or kind == "detection":
        return None
    values = _FORMS[kind](value, asked)
    return None if values is None else Predictions(kind, values)


def _guess(value: Tensor, asked: _Asked) -> Task | None:
    """The task of a tensor, by its shape; see `recognise`."""
    real = value.is_floating_point()
    if value.ndim == 1:
        return None if real else "classes"
    if value.ndim == 2 and real:
        lengths = value.double().norm(dim=1)
        return "embeddings" if bool(((lengths - 1).abs() < 1e-3).all()) and bool((value < 0).any()) else "classes"
    if value.ndim == 3 and real and value.shape[2] == 2 and value.shape[1] > 1:
        return "keypoints"
    if value.ndim == 3:
        return "images" if real else "segmentation"
    if value.ndim != 4 or not real:
        return None
    if value.shape[1] == asked.channels and _multiple(value, asked.size):
        return "images"
    return "segmentation" if value.shape[1] > 1 else None


def _multiple(value: Tensor, size: tuple[int, int]) -> int:
    """How many times as large as the input a map is, if it is so as a whole; otherwise 0."""
    height, width = value.shape[-2:]
    times = height // size[0]
    return times if (height, width) == (size[0] * times, size[1] * times) else 0


def _as_classes(value: Tensor, asked: _Asked) -> Tensor | None:
    real = value.is_floating_point()
    return value if (value.ndim == 2 and real) or (value.ndim == 1 and not real) else None


def _as_segmentation(value: Tensor, asked: _Asked) -> Tensor | None:
    real = value.is_floating_point()
    if value.ndim != (4 if real else 3):
        return None
    if real and value.shape[1] == 1:
        value, real = (value[:, 0] > 0).long().masked_fill(value[:, 0].isnan(), -1), False
    return _resized(value, asked.size) if real else _resized_labels(value, asked.size)


def _as_keypoints(value: Tensor, asked: _Asked) -> Tensor | None:
    if value.ndim == 3 and value.shape[2] in (2, 3):
        return value[..., :2]
    if value.ndim != 4:
        return None
    height, width = value.shape[2:]
    place = value.flatten(2).argmax(2)
    points = torch.stack([place % width, place // width], -1).double()
    # the centres of the map's cells, in pixels of the input
    scale = torch.tensor([asked.size[1] / width, asked.size[0] / height], dtype=torch.float64, device=value.device)
    missing = value.isnan().flatten(2).any(2)
    return ((points + 0.5) * scale - 0.5).masked_fill(missing[..., None], torch.nan)


def _as_embeddings(value: Tensor, asked: _Asked) -> Tensor | None:
    return value.flatten(1) if value.ndim > 1 and value.is_floating_point() else None


def _as_images(value: Tensor, asked: _Asked) -> Tensor | None:
    if value.ndim not in (3, 4) or not value.is_floating_point():
        return None
    value = value if value.ndim == 4 else value[:, None]
    return value if _multiple(value, asked.size) else _resized(value, asked.size)


def _resized(value: Tensor, size: tuple[int, int]) -> Tensor:
    """Maps (N, C, h, w) at the input's resolution, bilinear as in the libraries' own post-processing."""
    same = tuple(value.shape[2:]) == tuple(size)
    return value if same else F.interpolate(value.float(), size, mode="bilinear", align_corners=False)


def _resized_labels(value: Tensor, size: tuple[int, int]) -> Tensor:
    """Classes (N, h, w) at the input's resolution, by nearest neighbour."""
    rows, columns = (
        torch.arange(wanted, device=value.device) * found // wanted
        for wanted, found in zip(size, value.shape[1:], strict=True)
    )
    return value[:, rows[:, None], columns]


def _filtered(found: Predictions, least_score: float | None) -> Predictions:
    if least_score is None or not isinstance(found.values, list):
        return found
    return Predictions(found.task, [each.take(each.scores >= least_score) for each in found.values])


_FORMS: dict[Task, Callable[[Tensor, _Asked], Tensor | None]] = {
    "classes": _as_classes,
    "segmentation": _as_segmentation,
    "keypoints": _as_keypoints,
    "embeddings": _as_embeddings,
    "images": _as_images,
}
_READERS: tuple[Callable[[Any, _Asked], Predictions | None], ...] = (
    _read_pipeline,
    _read_mapping,
    _read_raw,
    _read_plain,
)
