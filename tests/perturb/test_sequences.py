import numpy as np
import pytest
from helpers.pictures import gaussian_blurred
from PIL import Image
from scipy import ndimage
from skimage import color, data
from skimage.transform import ProjectiveTransform, warp

from dealias.errors import InputError, InputTypeError
from dealias.optional import import_torchvision
from dealias.perturb import NOISE_PERTURBATIONS, PERTURBATIONS, VALIDATION_PERTURBATIONS, sequence

transforms = import_torchvision().transforms
ALL = PERTURBATIONS + VALIDATION_PERTURBATIONS
PHOTO = np.asarray(Image.fromarray(data.astronaut()).resize((64, 64)))
RANDOM = (*NOISE_PERTURBATIONS, "snow", "spatter")


def rng(*seed: int) -> np.random.Generator:
    return np.random.default_rng(seed)


def frames_of(name: str, image: np.ndarray = PHOTO, **options: int) -> np.ndarray:
    return sequence(image, name, generator=rng(0), **options)


def affine(step: int, **motion: float) -> np.ndarray:
    """The reference frame of 48 pixels, as published: torchvision's affine map of the picture, then its middle."""
    settings = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0]} | motion
    moved = transforms.functional.affine(
        Image.fromarray(PHOTO), **settings, interpolation=transforms.InterpolationMode.BILINEAR
    )
    return np.asarray(transforms.functional.center_crop(moved, [48, 48]))


@pytest.mark.parametrize("name", ALL)
@pytest.mark.parametrize(
    "image",
    [PHOTO[:40], PHOTO[:28, :28, 0], PHOTO[:30, :28, :1], PHOTO[:32, :, 0] / 255.0, np.zeros((32, 32, 3), np.uint8)],
    ids=["rgb", "grey", "channel", "float64", "black"],
)
def test_same_seed_same_frames_in_the_form_of_the_image(name: str, image: np.ndarray) -> None:
    before = image.copy()
    first, again, other = (sequence(image, name, generator=rng(0, seed)) for seed in (3, 3, 11))
    assert first.shape == (11 if name == "translate" else 31, *image.shape)
    assert first.dtype == image.dtype
    assert np.isfinite(first).all()
    assert first.min() >= 0
    assert first.max() <= (255 if image.dtype == np.uint8 else 1)
    assert np.array_equal(first, again)
    if name not in RANDOM:
        assert np.array_equal(first, other)
    elif image.max() > 0:
        assert not np.array_equal(first, other)
    assert np.array_equal(image, before)
    assert sequence(image, name, generator=rng(0), size=24).shape[:3] == (len(first), 24, 24)


@pytest.mark.parametrize("name", ALL)
def test_bytes_and_floats_agree(name: str) -> None:
    levels, floats = frames_of(name), frames_of(name, PHOTO / 255.0)
    # Pillow warps bytes in fixed point: within a level, but for single pixels at the border.
    assert np.quantile(np.abs(levels - floats * 255), 0.999) <= 1.5


@pytest.mark.parametrize("name", sorted(set(ALL) - set(NOISE_PERTURBATIONS) - {"translate"}))
def test_frames_change_little_by_little(name: str) -> None:
    image = np.asarray(Image.fromarray(data.astronaut()).resize((128, 128))) / 255.0
    frames = frames_of(name, image, size=112)
    near, far = (np.sqrt(((frames[step:] - frames[:-step]) ** 2).mean()) for step in (1, 10))
    assert 0 < near < far


def test_translate_goes_a_pixel_a_frame() -> None:
    image = np.asarray(Image.fromarray(data.astronaut()).resize((256, 256)))
    frames = frames_of("translate", image, size=224)
    assert frames.shape == (41, 224, 224, 3)
    for i, frame in enumerate(frames):
        left = 16 - (i - 20)
        expected = np.zeros((224, 224, 3), np.uint8)
        start, stop = max(left, 0), min(left + 224, 256)
        expected[:, start - left : stop - left] = image[16:240, start:stop]
        assert np.array_equal(frame, expected)


@pytest.mark.parametrize(
    ("name", "motion"),
    [
        ("rotate", lambda i: {"angle": i - 15.0}),
        ("scale", lambda i: {"scale": (i * 2.5 + 40) / 100}),
        ("shear", lambda i: {"shear": [i - 15.0, 0.0]}),
    ],
)
def test_motions_are_torchvisions(name: str, motion) -> None:
    for i, frame in enumerate(frames_of(name, size=48)):
        difference = np.abs(frame.astype(int) - affine(i, **motion(i)))
        # rounding on the very border of the picture decides between black and a pixel
        assert np.quantile(difference, 0.998) <= 1
        assert (difference > 1).mean() < 0.002


def test_zoom_blur_is_a_running_mean() -> None:
    total = affine(0).astype(float)
    frames = frames_of("zoom_blur", size=48)
    assert np.array_equal(frames[0], affine(0))
    for i in range(1, 31):
        total += affine(i, scale=1 + 0.004 * i)
        assert np.abs(frames[i] - total / (i + 1)).max() <= 1.5


def test_tilt_is_the_projection_of_a_turned_plane() -> None:
    image = ndimage.gaussian_filter(PHOTO[:56] / 255.0, (2, 2, 0))
    height, width = image.shape[:2]
    far = np.hypot(height, width)
    corners = np.array([(0, 0), (width, 0), (width, height), (0, height)], float)
    frames = frames_of("tilt", image)
    for i in (0, 7, 15, 22, 30):
        angle = np.deg2rad(i - 15)
        seen = []
        for x, y in corners - (width / 2, height / 2):
            # about the vertical axis, then the horizontal one, then away from the eye
            turned_x, depth = x * np.cos(angle), x * np.sin(angle)
            turned_y, depth = y * np.cos(angle) - depth * np.sin(angle), y * np.sin(angle) + depth * np.cos(angle)
            seen.append((far * turned_x / (far + depth) + width / 2, far * turned_y / (far + depth) + height / 2))
        # scikit-image counts from the centre of the first pixel
        back = ProjectiveTransform.from_estimate(np.array(seen) - 0.5, corners - 0.5)
        expected = warp(image, back, order=1)
        assert np.abs(frames[i] - expected)[10:-10, 10:-10].max() < 0.02
    assert np.abs(frames[15] - image).max() < 1e-5


def test_brightness_adds_to_the_value_of_hsv() -> None:
    for i, frame in enumerate(frames_of("brightness")):
        hsv = color.rgb2hsv(PHOTO)
        hsv[..., 2] = (hsv[..., 2] + (i - 15) * 2 / 100).clip(0, 1)
        assert np.abs(frame - color.hsv2rgb(hsv) * 255).max() < 0.51


def test_gaussian_blur_widens() -> None:
    image = np.asarray(Image.fromarray(data.astronaut()).resize((224, 224))) / 255.0
    for i, frame in enumerate(frames_of("gaussian_blur", image)[::10]):
        sigma = 0.25 + 0.35 * i
        expected = gaussian_blurred(image, sigma, truncate=6)
        assert np.abs(frame - expected).max() < 1e-5


def test_motion_blur_turns() -> None:
    image = np.zeros((224, 224))
    image[112, 112] = 1
    frames = frames_of("motion_blur", image)
    taps = np.exp(-(np.arange(21) ** 2) / (2 * 3**2))
    taps /= taps.sum()
    for i in (0, 15, 30):
        angle = np.deg2rad((i - 30) * 4)
        expected = np.zeros_like(image)
        for step, tap in enumerate(taps):
            expected[112 - round(step * np.sin(angle)), 112 - round(step * np.cos(angle))] += tap
        assert np.abs(frames[i] - expected).max() < 1e-6


@pytest.mark.parametrize("difficulty", [1, 2, 3])
def test_noise_has_its_moments(difficulty: int) -> None:
    grey = np.full((64, 64), 0.5)
    for name, deviation in (
        ("gaussian_noise", [0.03, 0.05, 0.08]),
        ("speckle_noise", [0.025, 0.05, 0.075]),
        ("shot_noise", [(0.5 / photons) ** 0.5 for photons in (300, 120, 60)]),
    ):
        frames = frames_of(name, grey, difficulty=difficulty)
        assert np.array_equal(frames[0], grey)
        assert frames[1:].std() == pytest.approx(deviation[difficulty - 1], rel=0.02)
        assert frames[1:].mean() == pytest.approx(0.5, abs=0.002)
        # drawn anew for each frame
        assert abs(np.corrcoef(frames[1].ravel(), frames[2].ravel())[0, 1]) < 0.06


def test_difficulty_is_the_noises_only() -> None:
    for name in set(ALL) - set(NOISE_PERTURBATIONS):
        assert np.array_equal(frames_of(name, difficulty=1), frames_of(name, difficulty=3))


def test_spatter_is_water_that_runs() -> None:
    frames = frames_of("spatter", np.zeros((224, 224, 3)))
    wet = frames[0].sum(-1) > 0.1
    assert 0.01 < wet.mean() < 0.2
    colour = frames[0][wet].sum(0)
    assert colour / colour[0] == pytest.approx([1, 238 / 175, 238 / 175], rel=1e-3)
    # each frame spreads the water along its columns, by the kernel (.05, .1, .15, .7)
    shares = [(frame.sum(-1) > 0.1).mean() for frame in frames]
    assert shares[-1] > 1.2 * shares[0]


@pytest.mark.parametrize(
    ("arguments", "options", "error", "words"),
    [
        ((PHOTO, "rain"), {}, InputError, "name='rain'"),
        ((PHOTO, "tilt"), {"difficulty": 4}, InputError, "difficulty=4"),
        ((PHOTO, "tilt"), {"size": 65}, InputError, "size=65"),
        ((PHOTO, "tilt"), {"size": 4}, InputError, "size=4"),
        ((PHOTO * 1.0, "tilt"), {}, InputError, r"\[0, 1\]"),
        ((PHOTO, "tilt"), {"generator": None}, InputTypeError, "default_rng"),
    ],
)
def test_bad_input(arguments: tuple, options: dict, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        sequence(*arguments, **({"generator": rng(0)} | options))
