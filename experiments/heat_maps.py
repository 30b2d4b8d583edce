"""Heat maps of the internal feature distance in VGG13, plain and anti-aliased: docs/heat-maps.md and its figure.

    make heat-maps

The network of Zhang (2019), figure 5, with circular padding, trained on 12,000 images of Fashion-MNIST for 5 epochs.
Weights and figures gather in runs/heat-maps: a run that was stopped goes on where it was.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping
from dataclasses import asdict
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from images import PAD, Images, as_input, load
from PIL import Image
from rich.progress import Progress
from tables import as_markdown, replace_section
from torch import Tensor, nn

from dealias.files import prepare_output, write_whole
from dealias.metrics import measure_consistencies, wilson_interval
from dealias.metrics.site_profile import Profile, SiteProfile, profile_model
from dealias.models import create_model
from dealias.report import picture_bytes
from dealias.report.plots import plot_site_maps
from dealias.training import Config, Settings, train

NETWORK, PADDING = "dealias:vgg13_bn_cifar", "circular"
FILTERS = {"none": "plain", "bin4": "bin4"}
REACH = 16  # pixels of the circular shifts of the consistency
PAGE = Path("docs/heat-maps.md")
FIGURE = Path("docs/images/heat-maps.png")


def settings(filter: str, epochs: int) -> Settings:
    """How a network is trained: without shift augmentation, as the paper's."""
    return Settings(
        epochs=epochs,
        batch_size=64,
        learning_rate=0.05,
        optimizer="sgd",
        weight_decay=5e-4,
        schedule="one-cycle",
        shift_augmentation=False,
        flip=0.0,
        precision="bf16",
        channels_last=True,
        antialias=filter != "none",
        filter="bin4" if filter == "none" else filter,
        padding_mode=PADDING,
        in_chans=1,
    )


def write_folders(images: Images, train_images: int, folder: Path) -> None:
    """Write PNGs of 32 x 32 pixels into class folders: train, and val with 1,000 test images."""
    parts = {
        "train": (images.train[:train_images], images.train_labels),
        "val": (images.test[:1000], images.test_labels),
    }
    for part, (pixels, labels) in parts.items():
        for number, (picture, label) in enumerate(
            zip(F.pad(pixels, (PAD,) * 4).numpy(), labels.tolist(), strict=False)
        ):
            path = prepare_output(folder / part / str(label)) / f"{number:05d}.png"
            if not path.exists():
                content = BytesIO()
                Image.fromarray(picture).save(content, "png")
                write_whole(path, content.getvalue())


def measure(network: nn.Module, images: Images, maps: int, progress: Progress) -> dict[str, Any]:
    """Accuracy, circular consistency, and by site the distances over all shifts and between two images."""
    shown, labels = as_input(images.test), images.test_labels
    with torch.inference_mode():
        right = int((torch.cat([network(part).argmax(1) for part in shown.split(250)]) == labels).sum())
    consistency = measure_consistencies(network, shown[:2000], {"circular": {"max_shift": REACH}})["circular"]
    task = progress.add_task("shifts")
    profile = profile_model(
        network, shown[:maps], progress=lambda done, total: progress.update(task, completed=done, total=total)
    )
    return {
        "accuracy": [right / len(labels), *wilson_interval(right, len(labels))],
        "consistency": [consistency.consistency, *consistency.interval],
        "profile": asdict(profile),
        "others": distances_of_others(network, shown[:maps], [site.path for site in profile.sites]),
    }


@torch.no_grad()
def distances_of_others(network: nn.Module, images: Tensor, paths: list[str]) -> dict[str, float]:
    """The mean distance of each image's features, 1 - cosine similarity over channels, from those of the next image."""
    features: dict[str, Tensor] = {}
    hooks = [
        network.get_submodule(path).register_forward_hook(
            lambda module, inputs, output, path=path: features.update({path: output})
        )
        for path in paths
    ]
    network(images)
    for hook in hooks:
        hook.remove()
    found = {}
    for path, ours in features.items():
        others = ours.roll(1, 0)
        empty = ((ours == 0) & (others == 0)).all(1)  # two zero vectors have distance 0
        found[path] = float((1 - F.cosine_similarity(ours, others, dim=1)).masked_fill(empty, 0).mean())
    return found


def figures_of(filter: str, images: Images, asked: argparse.Namespace, progress: Progress) -> dict[str, Any]:
    """Train and measure a network, unless that is done."""
    stored: Path = asked.work / f"{filter}.json"
    if not stored.exists():
        config = Config(NETWORK, settings(filter, asked.epochs), data=str(asked.work / "data"))
        task = progress.add_task(f"training {FILTERS[filter]}", total=1.0)
        folder = asked.work / filter
        train(config, folder, resume=True, on_progress=lambda _, done: progress.update(task, completed=done))
        network = create_model(
            NETWORK,
            padding_mode=PADDING,
            in_chans=1,
            antialias=filter != "none",
            filter="bin4" if filter == "none" else filter,
            weights=folder / "checkpoints" / "last.safetensors",
        ).eval()
        write_whole(stored, json.dumps(measure(network, images, asked.maps, progress)))
    found: dict[str, Any] = json.loads(stored.read_text())
    return found


def profile_of(found: Mapping[str, Any]) -> Profile:
    """The profile as it was before it was written."""
    own = found["profile"]
    return Profile(**{**own, "sites": [SiteProfile(**site) for site in own["sites"]]})


def on_and_off(site: SiteProfile) -> tuple[float, float]:
    """The mean distance of the output at shifts by whole steps of the grid, none included, and at all others."""
    values = np.asarray(site.maps["output"])
    rows, columns = (np.arange(size) % step == 0 for size, step in zip(values.shape, site.grid, strict=True))
    on = rows[:, None] & columns[None, :]
    return float(values[on].mean()), float(values[~on].mean())


def site_rows(found: Mapping[str, Mapping[str, Any]]) -> list[dict[str, Any]]:
    """A row for each pooling and network."""
    profiles = {filter: profile_of(one) for filter, one in found.items()}
    rows = []
    for number, plain in enumerate(profiles["none"].sites):
        for filter, profile in profiles.items():
            site = profile.sites[number]
            on, off = on_and_off(site)
            rows.append(
                {
                    "pooling": f"{number + 1} (`{plain.path}`)",
                    "grid": f"{site.grid[0]} px",
                    "network": FILTERS[filter],
                    "maximum": f"{site.maximum:.4f}",
                    "subsampled": f"{site.after:.4f}",
                    "on the grid": f"{on:.4f}",
                    "off the grid": f"{off:.4f}",
                    "off the grid, to plain": "" if filter == "none" else f"{off / on_and_off(plain)[1]:.0%}",
                    "two images": f"{found[filter]['others'][site.path]:.3f}",
                }
            )
    return rows


def write_page(found: Mapping[str, Mapping[str, Any]]) -> None:
    """Write the tables and the figure."""
    rows = []
    for filter, one in found.items():
        cells = {name: "{:.1%} ({:.1%} to {:.1%})".format(*one[name]) for name in ("accuracy", "consistency")}
        rows.append({"network": FILTERS[filter], **cells})
    replace_section(PAGE, "heat_maps.py", as_markdown(rows))
    picture = f"![Internal feature distance over all shifts, for each pooling](images/{FIGURE.name})"
    replace_section(PAGE, "heat_maps.py: poolings", f"{picture}\n\n{as_markdown(site_rows(found))}")
    profiles = {FILTERS[filter]: profile_of(one) for filter, one in found.items()}
    write_whole(FIGURE, picture_bytes(plot_site_maps(profiles)))


def main() -> None:
    """Train, measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--train-images", type=int, default=12_000)
    parser.add_argument("--maps", type=int, default=32, help="number of images under all shifts")
    parser.add_argument("--work", type=Path, default=Path("runs/heat-maps"))
    parser.add_argument("--page", action="store_true", help="write the page from the figures at the end")
    asked = parser.parse_args()
    images = load("fashion", None, asked.work)
    write_folders(images, asked.train_images, asked.work / "data")
    with Progress() as progress:
        found = {filter: figures_of(filter, images, asked, progress) for filter in FILTERS}
    if asked.page:
        write_page(found)


if __name__ == "__main__":
    main()
