"""Bad arguments of every public function: one error that names the argument.

A new public function without a row fails `test_every_public_function_has_a_row`.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

from dealias.errors import InputError, shown
from dealias.models import vgg_small

MODULES = (
    "",
    "functional",
    "filters",
    "nn",
    "metrics",
    "perturb",
    "models",
    "data",
    "evaluation",
    "training",
    "repair",
)
PARTS_OF_LAYERS = ("functional", "filters", "nn")
"""Modules without an `__all__`: their public functions are those with a docstring and no underscore."""

NETWORK, IMAGES = vgg_small().eval(), torch.rand(2, 1, 32, 32)
PICTURE, GENERATOR = np.zeros((40, 40, 3), np.uint8), np.random.default_rng(0)
HUGE, LONG = 10**30, "9" * 5000
LOGITS = torch.rand(3, 5)
NAN = torch.tensor([[0.0, torch.nan]])
BAD_INTS: list[Any] = [0, -1, 2.5, "2", None, True, HUGE]
"""Values that no count takes."""


def each(argument: str, values: list[Any], /, **more: Any) -> list[tuple[tuple[Any, ...], dict[str, Any], str]]:
    """Rows in which `argument` has one bad value after the other."""
    return [((), {argument: value, **more}, argument) for value in values]


FLAGS: list[Any] = ["no", 1, None]
MODEL = {"model": NETWORK, "images": IMAGES}
EXAMPLE = {"model": NETWORK, "example_input": IMAGES}
SHIFTED = {"images": IMAGES, "dx": 1}
FOUND = {"boxes": torch.ones(1, 4), "scores": torch.ones(1), "labels": torch.ones(1)}
VIEWS = {"shift": (0, 0), "size": (9, 9)}
NOT_IMAGES: list[Any] = [None, np.zeros((1, 1, 8, 8)), torch.zeros(8, 8), torch.zeros(0, 1, 8, 8)]
LAYER: list[Any] = [*each("filter", ["gauss", 2000, b"x"]), *each("padding_mode", ["mirror", None])]
POOL = [*each("stride", [0, "2", b"2", {2}, HUGE], kernel_size=2), *each("kernel_size", BAD_INTS)]

STABILITY = [
    *each("model", [None, "resnet18"], images=IMAGES),
    *each("images", [*NOT_IMAGES, IMAGES.byte(), [], 3], model=NETWORK),
    *each("task", ["boxes", None, "detection"], **MODEL),
    *each("batch_size", BAD_INTS, **MODEL),
    *each("seed", [-1, "0"], **MODEL),
    *each("level", [0, 1, "0.95"], **MODEL),
    *each("predict", ["detect", 3], **MODEL),
    *(((NETWORK, IMAGES), {"views": views}, "mode") for views in ("mirror", None)),
]

# name of the function: positional arguments, keyword arguments, and what the message has to name
TABLE: dict[str, list[tuple[tuple[Any, ...], dict[str, Any], str]]] = {
    **{f"{layer}{axes}d": LAYER for layer in ("BlurPool",) for axes in (1, 2, 3)},
    **{f"MaxBlurPool{axes}d": POOL for axes in (1, 2, 3)},
    "antialias": [
        *each("model", [None, "resnet18"], example_input=IMAGES),
        *each("example_input", [None, torch.zeros(3)], model=NETWORK),
        *each("method", ["anchor", None], **EXAMPLE),
        *each("filter", ["gauss", 2000], **EXAMPLE),
        *each("recipe", ["paper", None], **EXAMPLE),
        *each("placement", ["front", None], **EXAMPLE),
        *each("placement", ["before"], recipe="zhang2019", **EXAMPLE),
        *each("padding_mode", ["mirror"], **EXAMPLE),
        *each("stem", FLAGS, **EXAMPLE),
        *each("strict", FLAGS, **EXAMPLE),
        *each("inplace", FLAGS, **EXAMPLE),
    ],
    "measure_stability": STABILITY,
    "certify": [
        *each("model", [None, "resnet18"], example_input=IMAGES),
        *each("example_input", [None, torch.zeros(3)], model=NETWORK),
        *each("shifts", [[], 3, "1", ["1"], [(1, 2, 3)], [float("nan")], [float("inf")], [None]], **EXAMPLE),
    ],
    "to_circular": each("model", [None, "resnet18"]),
    "Certificate": [],
    "sites": [
        *each("model", [None], example_input=IMAGES),
        *each("method", ["anchor", None], **EXAMPLE),
        *each("stem", FLAGS, **EXAMPLE),
        *each("recipe", ["paper"], **EXAMPLE),
        *each("placement", ["front"], **EXAMPLE),
    ],
    **{f"functional.blur_pool{axes}d": [((None,), {}, "input")] for axes in (1, 2, 3)},
    **{f"functional.max_blur_pool{axes}d": [((None, 2), {}, "input")] for axes in (1, 2, 3)},
    "functional.relu_blur_pool2d": [((None,), {}, "input"), ((torch.ones(1, 1, 4, 4),), {"stride": 0}, "stride")],
    "filters.resolve_filter": each("filter", ["gauss", "db99", 0, [], [1, -1], {1.0}, LONG]),
    "filters.resolve_filters": each("filter", ["gauss", ("bin4",)], spatial=2),
    "filters.scaled": [
        *each("filter", ["gauss"], stride=2),
        *each("filter", ["db2"], stride=3),
        *each("stride", BAD_INTS, filter="bin4"),
    ],
    "filters.kaiser": [
        *each("taps", [*BAD_INTS, 2000]),
        *each("cutoff", [0, 1.0, "0.5", None], taps=6),
        *each("width", [0.0, 2, True], taps=6),
    ],
    "filters.parse_filter": [(("1,x",), {}, "filter"), ((LONG,), {}, "filter")],
    "nn.ReLUBlurPool2d": LAYER,
    "nn.Quadratic": each("channels", BAD_INTS),
    "nn.MapNorm": [*each("channels", BAD_INTS), *each("eps", [-1.0, "0", None, float("nan")], channels=3)],
    "metrics.shift_consistency": [
        ((LOGITS, LOGITS[:2]), {}, "logits_a"),
        ((None, LOGITS), {}, "logits_a"),
        ((NAN, NAN), {}, "logits_a"),
        ((LOGITS[:0], LOGITS[:0]), {}, "logits_a"),
    ],
    "metrics.flip_rate": [
        ((LOGITS,), {}, "logits"),
        ((None,), {}, "logits"),
        ((torch.rand(1, 4, 5),), {"difficulty": 9}, "difficulty"),
    ],
    "metrics.top5_distance": [((LOGITS,), {}, "logits"), ((torch.rand(1, 4, 5),), {"difficulty": "1"}, "difficulty")],
    "metrics.FlipRate": each("difficulty", [0, 4, "1"]),
    "metrics.T5D": each("difficulty", [0, 4, "1"]),
    "metrics.alexnet_corruption_errors": [],
    "metrics.mean_normalised": [(({}, {}), {}, "values"), (({"a": 1.0}, {}), {}, "baseline")],
    "metrics.wilson_interval": [((1, 0), {}, "total"), ((3, 2), {}, "successes"), ((1, 2), {"level": 1.0}, "level")],
    "metrics.clustered_wilson_interval": [
        (([], 2), {}, "trials"),
        (([3], 2), {}, "successes"),
        (([1], 2), {"level": 2}, "level"),
    ],
    "metrics.mean_interval": [(([],), {}, "values"), (([1.0, 2.0],), {"level": 0}, "level")],
    "metrics.measure_consistency": [
        *each("mode", ["mirror", None], **MODEL),
        *each("batch_size", BAD_INTS, mode="circular", **MODEL),
        *each("pairs", BAD_INTS[:4], mode="circular", **MODEL),
        *each("max_shift", BAD_INTS[:4], mode="circular", **MODEL),
        *each("crop_size", BAD_INTS[:4], **MODEL),
        *each("level", [0, 1, "0.95"], mode="circular", **MODEL),
        *each("images", NOT_IMAGES[:2], model=NETWORK, mode="circular"),
        *each("model", [None, "resnet18"], images=IMAGES, mode="circular"),
    ],
    "metrics.measure_consistencies": [
        ((NETWORK, IMAGES, {}), {}, "modes"),
        ((NETWORK, IMAGES, {"mirror": {}}), {}, "mode"),
    ],
    "metrics.internal_feature_distance": [
        ((NETWORK, IMAGES, "nowhere"), {}, "layer='nowhere'"),
        *each("batch_size", BAD_INTS, layer="features", **MODEL),
        *each("shifts", [((), (0,)), ((0.5,), (0,)), 3], layer="features", **MODEL),
        *each("stage", ["middle"], layer="features", **MODEL),
        *each("images", NOT_IMAGES, model=NETWORK, layer="features"),
    ],
    "metrics.internal_feature_distances": each("layers", [[]], **MODEL),
    "metrics.ShiftConsistency": [],
    "metrics.CorruptionError": [],
    "metrics.ratio_interval": [
        (([1.0], []), {}, "numerators"),
        (([1.0], [0.0]), {}, "denominators"),
        (([1.0], [1.0]), {"level": 2}, "level"),
    ],
    "metrics.make_views": [*each("mode", ["mirror", None]), *each("pairs", BAD_INTS[:4], mode="circular")],
    "metrics.measure_stability": STABILITY,
    "metrics.detection_consistency": [
        *each("a", [None, {}, ["x"], [{}], [{"boxes": torch.ones(2, 3), "labels": [1, 2]}]], b=[FOUND], **VIEWS),
        *each("shift", [None, "1", (0, 0, 0), (0, torch.nan), (0, 99)], a=[FOUND], b=[FOUND], size=(9, 9)),
        *each("size", [None, 9, (9,), (0, 9), "99"], a=[FOUND], b=[FOUND], shift=(0, 0)),
    ],
    "metrics.average_precision": [*each("predictions", [None, [], [None]], targets=[FOUND])],
    "metrics.segmentation_consistency": each("a", NOT_IMAGES, b=IMAGES, shift=(0, 0)),
    "metrics.keypoint_consistency": [
        *each("a", [None, torch.zeros(2, 3), torch.zeros(1, 2, 3)], b=torch.zeros(1, 2, 2), shift=(0, 0)),
        *each("boxes", ["x", torch.zeros(3, 4)], a=torch.zeros(1, 2, 2), b=torch.zeros(1, 2, 2), shift=(0, 0)),
    ],
    "metrics.embedding_consistency": each("a", [None, torch.zeros(3), NAN], b=NAN),
    "metrics.equivariance_psnr": [
        *each("a", NOT_IMAGES, b=IMAGES, shift=(0, 0)),
        *each("data_range", [0, None, "2", torch.inf], a=IMAGES, b=IMAGES, shift=(0, 0)),
    ],
    "metrics.EquivariancePSNR": each("data_range", [0, None, "2"]),
    "metrics.link_tracks": [
        *each("frames", [None, {}, [None]]),
        *each("shifts", ["1", [(0, 0)] * 2], frames=[FOUND]),
    ],
    "perturb.circular_shift": [
        *each("images", NOT_IMAGES, dy=1, dx=1),
        *each("dy", [0.5, "1", None, [1, 2, 3], True], **SHIFTED),
    ],
    "perturb.slide": [
        *each("photo", [None, IMAGES], size=(4, 4)),
        *each("frames", BAD_INTS, photo=IMAGES[0], size=(4, 4)),
        *each("step", [(1,), (torch.nan, 0), (1e9, 0)], photo=IMAGES[0], size=(4, 4)),
    ],
    "perturb.zero_fill_shift": [
        *each("images", NOT_IMAGES, dy=1, dx=1),
        *each("dy", [0.5, "1", None, [1, 2, 3]], **SHIFTED),
        *each("fill", ["0", None], dy=1, **SHIFTED),
    ],
    "perturb.fourier_shift": [
        *each("images", NOT_IMAGES, dy=1, dx=1),
        *each("dy", ["1", None, torch.nan, [1, 2, 3]], **SHIFTED),
    ],
    "perturb.crop": [
        *each("images", NOT_IMAGES, top=0, left=0, size=4),
        *each("size", [*BAD_INTS[:5], 100], images=IMAGES, top=0, left=0),
        *each("top", [-1, 40, 0.5], images=IMAGES, left=0, size=4),
    ],
    "perturb.Pan": [
        *each("photo", [None, IMAGES], size=(4, 4), path=[(0, 0)]),
        *each("path", [[], [(-1, 0)], [(0, 99)]], photo=IMAGES[0], size=(4, 4)),
        *each("kernel", ["cubic", None], photo=IMAGES[0], size=(4, 4), path=[(0, 0)]),
        *each("size", [("4", 4), (0, 4), (4.5, 4)], photo=IMAGES[0], path=[(0, 0)]),
    ],
    "perturb.resize_and_crop": [*each("images", NOT_IMAGES, size=4), *each("size", BAD_INTS[:6], images=IMAGES)],
    "perturb.corrupt": [
        ((PICTURE, "rain", 1), {"generator": GENERATOR}, "rain"),
        ((PICTURE, "fog", 9), {"generator": GENERATOR}, "severity"),
        ((PICTURE, "fog", True), {"generator": GENERATOR}, "severity"),
        ((PICTURE, "fog", 1.0), {"generator": GENERATOR}, "severity"),
        ((PICTURE, "fog", 1), {"generator": 0}, "generator"),
        ((None, "fog", 1), {"generator": GENERATOR}, "image"),
    ],
    "perturb.sequence": [
        ((PICTURE, "rain"), {"generator": GENERATOR}, "rain"),
        ((PICTURE, "snow"), {"generator": GENERATOR, "difficulty": 7}, "difficulty"),
        ((PICTURE, "snow"), {"generator": GENERATOR, "difficulty": 2.0}, "difficulty"),
        *[((PICTURE, "snow"), {"generator": GENERATOR, "size": size}, "size") for size in (16.5, "x", True)],
        ((PICTURE, "snow"), {"generator": GENERATOR, "size": 0}, "size"),
        ((PICTURE, "snow"), {"generator": None}, "generator"),
    ],
    "perturb.read_video": [(("nowhere.mp4",), {}, "nowhere.mp4")],
    "perturb.released_corruption": [(("nowhere", "fog", 1), {}, "root"), (("nowhere", "rain", 1), {}, "rain")],
    "perturb.released_videos": [
        (("nowhere", "snow"), {}, "root"),
        (("nowhere", "snow"), {"difficulty": 5}, "difficulty"),
    ],
    "models.create_model": [
        *(((name,), {}, "model") for name in ("nowhere", "timm:none", "..a:b", 3, "os:no")),
        *each("num_classes", BAD_INTS[:4], name="dealias:vgg_small"),
        *each("in_chans", BAD_INTS[:4], name="dealias:vgg_small"),
        *each("weights", ["nowhere.pth"], name="dealias:vgg_small"),
        *each("antialias", FLAGS, name="dealias:vgg_small"),
        *each("new_head", ["no", True], name="dealias:vgg_small"),
    ],
    "models.default_input_size": each("model", ["nowhere", 3]),
    "models.default_normalization": each("model", ["nowhere", 3]),
    "models.preprocessing_for": [
        *each("model", ["nowhere"]),
        *each("crop_size", BAD_INTS[:4], model="dealias:vgg_small"),
        *each("image_size", BAD_INTS[:4], model="dealias:vgg_small"),
        *each("in_chans", [0, 2, "3"], model="dealias:vgg_small"),
    ],
    "models.list_models": each("pattern", [3, None]),
    "models.is_listed": [],
    "models.efficientnet_lite0": [],
    "models.imagenet_labels": [],
    "models.load_weights": [
        ((NETWORK, "nowhere.pth"), {}, "weights"),
        ((NETWORK, 3), {}, "weights"),
        ((None, "nowhere.pth"), {}, "model"),
    ],
    "models.load_zhang_checkpoint": [((NETWORK, "nowhere.pth"), {}, "weights"), ((None, "nowhere.pth"), {}, "model")],
    "models.parse_model": [(("a:b,x=1",), {}, "x"), (("a:b,weights=3",), {}, "weights")],
    "models.vgg_small": [
        *each("in_chans", BAD_INTS),
        *each("num_classes", BAD_INTS),
        *each("padding_mode", ["mirror"]),
    ],
    "models.vgg13_bn_cifar": [*each("in_chans", BAD_INTS), *each("num_classes", BAD_INTS)],
    "models.VGG": each("stages", [[], [[]], [[0]], None]),
    "models.ModelSpec": [],
    "models.Preprocessing": [((32, 64, 64, 3, "bilinear", (0.0,), (1.0,)), {}, "crop_size")],
    "data.Video": [
        *each("path", ["missing.mp4", None]),
        *each("start", [-1, 1.5, "1"], path="missing.mp4"),
        *each("stop", [0, "1"], path="missing.mp4"),
        *each("short_side", BAD_INTS[:4], path="missing.mp4"),
    ],
    "data.digits_split": [],
    "data.mnist_digits": [],
    "data.photos": each("size", BAD_INTS[:4]),
    "data.open_source": [
        *(((place,), {}, "images") for place in ("nowhere", "")),
        *each("limit", BAD_INTS[:4], place="src"),
    ],
    "evaluation.evaluate": [
        *each("models", [[]], images="nowhere", output="x"),
        *each("metrics", [[], ["speed"]], models=["dealias:vgg_small"], images="src", output="x"),
        *each("batch_size", BAD_INTS[:4], models=["dealias:vgg_small"], images="src", output="x"),
        *each("workers", [-1, "2"], models=["dealias:vgg_small"], images="src", output="x"),
        *each("seed", [-1, 2**64, "0"], models=["dealias:vgg_small"], images="src", output="x"),
    ],
    "training.fit": [
        *each("epochs", BAD_INTS, model=NETWORK, images=IMAGES, labels=torch.zeros(2, dtype=torch.int64)),
        *each(
            "batch_size",
            [*BAD_INTS, 3],
            model=NETWORK,
            images=IMAGES,
            labels=torch.zeros(2, dtype=torch.int64),
            epochs=1,
        ),
    ],
    "training.load_recipe": [
        *(((name,), {}, "recipe") for name in ("nowhere", "nowhere.yaml")),
        (("digits",), {"overrides": {"epochs": 0}}, "epochs"),
    ],
    "training.recipe_text": [(("nowhere",), {}, "recipe")],
    "training.recipe_data": [(("nowhere",), {}, "recipe")],
    "training.recipe_names": [],
    "training.parse_overrides": [
        ((["epochs"],), {}, "epochs"),
        ((["epochs=x"],), {}, "epochs"),
        (([f"epochs={LONG}"],), {}, "epochs"),
    ],
    "training.train": [],
    "repair.repair": [
        ((NETWORK, IMAGES), {"epochs": 0}, "epochs"),
        ((NETWORK, IMAGES), {"held_out": 2.0}, "held_out"),
        ((NETWORK, IMAGES), {"resume": True}, "resume"),
        ((NETWORK, None), {}, "images"),
    ],
}
EXEMPT = {
    "training.train": "its Config and folder are tested in tests/training",
    "metrics.ConsistencyResult": "a result",
}


def public_functions() -> dict[str, Callable[..., Any]]:
    """The public functions and classes, by module and name."""
    functions: dict[str, Callable[..., Any]] = {}
    for name in MODULES:
        module = importlib.import_module(f"dealias.{name}".rstrip("."))
        own = [key for key, value in vars(module).items() if getattr(value, "__module__", "") == module.__name__]
        for key in getattr(module, "__all__", own):
            value = getattr(module, key)
            if callable(value) and not key.startswith("_"):
                functions[f"{name}.{key}".lstrip(".")] = value
    return functions


PUBLIC = public_functions()


@pytest.mark.parametrize("name", TABLE)
def test_bad_arguments_are_named(name: str) -> None:
    wrong = []
    for arguments, keywords, named in TABLE[name]:
        given = ", ".join([*map(shown, arguments), *(f"{key}={shown(value)}" for key, value in keywords.items())])[:150]
        try:
            PUBLIC[name](*arguments, **keywords)
        except InputError as error:
            message = str(error)
            if named not in message or not message.isprintable() or len(message) > 600:
                wrong.append(f"{given}: {message[:200]}")
        except Exception as error:
            wrong.append(f"{given}: {type(error).__name__}: {str(error)[:100]}")
        else:
            wrong.append(f"{given}: taken")
    assert not wrong, "\n".join(wrong)


def test_every_public_function_has_a_row() -> None:
    missing = [name for name, value in PUBLIC.items() if name not in {*TABLE, *EXEMPT} and inspect.isroutine(value)]
    assert not missing
    assert set(TABLE) <= set(PUBLIC)
