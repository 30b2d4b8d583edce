"""Profiles of networks side by side, and their files."""

from __future__ import annotations

import csv
import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dealias.data import mnist_digits, open_source, photos
from dealias.errors import InputError
from dealias.evaluation.network import build_network
from dealias.files import OutputFolder
from dealias.metrics.site_profile import Profile, profile_model
from dealias.models import ModelSpec, Preprocessing
from dealias.progress import OnProgress
from dealias.runtime import pick_device, versions

PROFILES, TABLE = "profile.json", "profile.csv"


@dataclass(frozen=True)
class StoredProfiles:
    """The content of `profile.json`.

    Attributes:
        networks: the settings of each network, by its label.
        images: `place`, None where packages brought them, and the `count` of images that each network saw.
        profiles: of each network.
        seed: of the images drawn.
        versions: of the packages that the figures depend on.
    """

    networks: dict[str, dict[str, Any]]
    images: dict[str, Any]
    profiles: dict[str, Profile]
    seed: int
    versions: dict[str, str]


def profile_networks(
    specs: Sequence[ModelSpec],
    images: str | Path | None,
    *,
    count: int = 4,
    reach: int | None = None,
    device: str = "auto",
    batch_size: int = 32,
    seed: int = 0,
    on_progress: OnProgress = lambda stage, done: None,
) -> StoredProfiles:
    """Profile networks on the same images.

    Args:
        specs: the networks, as `dealias.models.spec.label_models` labels them.
        images: as for `dealias.data.open_source`; None takes photographs, or digits for networks of one channel, that
            packages bring.
        count: number of images, drawn by `seed`; packages bring 5 photographs and 5,000 digits.
        reach: every shift from 0 to so many pixels less one, on both axes; None as in `profile_model`.
        device, batch_size: of the forward passes.
        seed: of the images drawn.
        on_progress: told the stage and the fraction of the work done.

    Raises:
        InputError: an argument is out of range, or none of the images can be read.
        MissingExtraError: a package is not installed.
    """
    for name, value in (("count", count), ("reach", reach), ("batch_size", batch_size)):
        if value is not None and value < 1:
            raise InputError(f"{name}={value!r} is too small: it must be at least 1")
    place = pick_device(device)
    shifts = None if reach is None else (range(reach), range(reach))
    profiles: dict[str, Profile] = {}
    sizes = {}
    for index, spec in enumerate(specs):
        network = build_network(spec, place, batch_size, seed=seed)
        pixels = _pixels(images, network.preprocessing, count, seed)

        def tell(done: int, total: int, index: int = index, label: str = spec.label) -> None:
            on_progress(label, (index + done / total) / len(specs))

        seen = network.see(pixels.to(place))
        profiles[spec.label] = profile_model(network.model, seen, shifts=shifts, batch_size=batch_size, progress=tell)
        sizes[spec.label] = len(pixels)
    return StoredProfiles(
        networks={spec.label: spec.identity() for spec in specs},
        images={"place": None if images is None else str(images), "count": sizes},
        profiles=profiles,
        seed=seed,
        versions=versions(),
    )


def write_profiles(folder: OutputFolder, stored: StoredProfiles) -> None:
    """Write the profiles as JSON and CSV into `folder`."""
    folder.write(PROFILES, json.dumps(asdict(stored), indent=1) + "\n")
    folder.write(TABLE, _table(stored.profiles))


def _pixels(images: str | Path | None, preprocessing: Preprocessing, count: int, seed: int) -> Tensor:
    """Bytes (N, C, H, W) of what the network sees."""
    if images is None:
        return _bundled(preprocessing, count)
    source = open_source(images, limit=count, seed=seed)
    found = []
    reasons: list[str] = []
    for number in range(len(source)):
        try:
            picture = source.read(number)
        except InputError as error:
            reasons.append(f"{source.names[number]}: {error}")
            continue
        found.append(torch.from_numpy(preprocessing.centre(preprocessing.square(picture, preprocessing.image_size))))
    if not found:
        raise InputError(f"images={str(images)!r} has no readable image among those drawn; {reasons[0]}")
    return torch.stack(found)


def _bundled(preprocessing: Preprocessing, count: int) -> Tensor:
    side = preprocessing.crop_size
    if preprocessing.channels == 1:
        pixels, _ = mnist_digits()
        chosen = pixels[:: max(len(pixels) // count, 1)][:count].unsqueeze(1).float() / 255
        resized = torch.nn.functional.interpolate(chosen, (side, side), mode="bilinear", align_corners=False)
    else:
        resized = torch.stack(list(photos(side).values()))[:count]
    return (resized * 255).round().byte()


def _table(profiles: dict[str, Profile]) -> str:
    text = io.StringIO()
    columns = ("path", "kind", "status", "before", "maximum", "after", "added", "periodicity")
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["network", *columns, "grid"])
    for label, profile in profiles.items():
        for site in profile.ranked():
            writer.writerow([label, *(getattr(site, column) for column in columns), "x".join(map(str, site.grid))])
    return text.getvalue()
