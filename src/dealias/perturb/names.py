"""The names in ImageNet-C and ImageNet-P, their severities and difficulties, apart from the code that needs SciPy."""

from __future__ import annotations

from dealias.errors import InputError, as_int

CORRUPTIONS = (
    *("gaussian_noise", "shot_noise", "impulse_noise"),
    *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness"),
    *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)
VALIDATION_CORRUPTIONS = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
SEVERITIES = (1, 2, 3, 4, 5)

PERTURBATIONS = (
    *("gaussian_noise", "shot_noise", "motion_blur", "zoom_blur", "snow"),
    *("brightness", "translate", "rotate", "tilt", "scale"),
)
VALIDATION_PERTURBATIONS = ("speckle_noise", "gaussian_blur", "spatter", "shear")
NOISE_PERTURBATIONS = ("gaussian_noise", "shot_noise", "speckle_noise")
DIFFICULTIES = (1, 2, 3)


def check_corruption(name: str, severity: int, argument: str = "name") -> None:
    """Raise InputError for a name or a severity that ImageNet-C does not have."""
    _check_name(argument, name, CORRUPTIONS + VALIDATION_CORRUPTIONS)
    if as_int("severity", severity) not in SEVERITIES:
        raise InputError(f"severity={severity!r} is out of range: use 1 to 5")


def check_perturbation(name: str, difficulty: int, argument: str = "name") -> None:
    """Raise InputError for a name or a difficulty that ImageNet-P does not have."""
    _check_name(argument, name, PERTURBATIONS + VALIDATION_PERTURBATIONS)
    check_difficulty(difficulty)


def check_difficulty(difficulty: int) -> None:
    """Raise InputError for a difficulty other than 1, 2 and 3."""
    if as_int("difficulty", difficulty) not in DIFFICULTIES:
        raise InputError(f"difficulty={difficulty!r} is out of range: use 1, 2 or 3")


def _check_name(argument: str, name: str, known: tuple[str, ...]) -> None:
    if name not in known:
        raise InputError(f"{argument}={name!r} is unknown: use one of {', '.join(known)}")
