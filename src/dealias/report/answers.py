"""Draw what networks return onto a frame."""

from __future__ import annotations

import io
import warnings
from dataclasses import replace
from typing import Any

import numpy as np
import numpy.typing as npt
import torch.nn.functional as F
from torch import Tensor

from dealias.metrics.boxes import Detections
from dealias.metrics.outputs import Predictions
from dealias.optional import require

WIDTH, QUALITY = 480, 70
"""Of the JPEGs, at most so many pixels across."""
_PALETTE = np.array(
    [[0, 0, 0], [230, 97, 1], [15, 118, 110], [67, 56, 202], [161, 98, 7], [190, 24, 93], [71, 85, 105]]
)

Pixels = npt.NDArray[np.uint8]


def draw_answer(frame: Tensor, answer: Predictions) -> bytes:
    """The JPEG of a frame, uint8 (C, H, W), with what a network returned for it: an answer to one image."""
    pillow = require("PIL.Image")
    image = pillow.fromarray(np.broadcast_to(frame.numpy(), (3, *frame.shape[1:])).transpose(1, 2, 0).copy())
    scale = min(WIDTH / image.width, 1.0)
    if scale < 1:
        # reduced first: drawing costs as many pixels as it has
        image = image.resize((WIDTH, round(scale * image.height)), pillow.Resampling.BILINEAR)
    found = answer.compact().values[0]
    scene = np.array(image)
    if isinstance(found, Detections):
        scene = _with_detections(scene, _scaled(found, scale, scene.shape[:2]))
    elif answer.task == "segmentation":
        classes = F.interpolate(found[None, None].float(), scene.shape[:2])[0, 0].long().numpy()
        mixed = 0.5 * scene + 0.5 * _PALETTE[classes % len(_PALETTE)]
        scene = np.where(classes[..., None] > 0, mixed, scene).astype(np.uint8)
    elif answer.task == "keypoints":
        scene = _with_points(scene, scale * found.numpy()[None])
    image = pillow.fromarray(scene)
    if answer.task == "classes" and isinstance(found, Tensor):
        require("PIL.ImageDraw").Draw(image).text(
            (4, 4), _caption(found), fill="white", stroke_width=2, stroke_fill="black"
        )
    buffer = io.BytesIO()
    image.save(buffer, format="JPEG", quality=QUALITY)
    return buffer.getvalue()


def _caption(found: Tensor) -> str:
    """The class, and its probability where there are scores."""
    if not found.is_floating_point():
        return f"class {int(found)}"
    scores = found.float().softmax(-1)
    return f"class {int(scores.argmax())}, {float(scores.max()):.0%}"


def _scaled(found: Detections, scale: float, size: tuple[int, int]) -> Detections:
    """Detections in a frame that is reduced to that size."""
    if scale == 1:
        return found
    masks, points = found.masks, found.points
    if masks is not None and len(masks):
        masks = F.interpolate(masks[None].float(), size)[0] > 0.5
    return replace(found, boxes=scale * found.boxes, masks=masks, points=None if points is None else scale * points)


def _with_detections(scene: Pixels, found: Detections) -> Pixels:
    if not len(found):
        return scene
    supervision = _supervision()
    detections = supervision.Detections(
        xyxy=found.boxes.numpy(),
        confidence=found.scores.numpy(),
        class_id=found.labels.numpy(),
        mask=None if found.masks is None else found.masks.numpy(),
    )
    if found.masks is not None:
        scene = supervision.MaskAnnotator().annotate(scene, detections)
    thickness = 2 if scene.shape[1] >= 320 else 1
    drawn: Pixels = supervision.BoxAnnotator(thickness=thickness).annotate(scene, detections)
    return drawn if found.points is None else _with_points(drawn, found.points.numpy())


def _with_points(scene: Pixels, points: npt.NDArray[Any]) -> Pixels:
    supervision = _supervision()
    places = np.nan_to_num(points, nan=-100)
    radius = max(min(scene.shape[:2]) // 100, 2)
    marked: Pixels = supervision.VertexAnnotator(radius=radius).annotate(scene, supervision.KeyPoints(xy=places))
    return marked


def _supervision() -> Any:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it draws without OpenCV too
        return require("supervision")
