"""Recipes for the repair of EfficientNet-Lite0 with few pictures: the tables of docs/repair.md.

    export PYTHONPATH=benchmarks
    python experiments/repair_recipes.py run --pictures FOLDER ... --photographs FOLDER    # goes on where it stopped
    python experiments/repair_recipes.py long NAME --pictures FOLDER ... --photographs FOLDER --seconds 4500   # so too
    python experiments/repair_recipes.py table

`--pictures` are unlabelled: every eighteenth is held out; all others are trained on, but for those that look like a
held-out one. `--photographs` are of ImageNet's kind and never trained on. `run` gives every recipe the same CPU time,
closed forms included, on one core. Results gather in runs/recipes/results.jsonl, one line of JSON for each recipe.
`long` trains by one recipe and measures on the way: the curve is in runs/recipes/long.json.
"""

from __future__ import annotations

import argparse
import json
import math
import time
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from rich.progress import track
from tables import as_markdown, replace_section
from torch import Tensor, nn

from dealias import antialias
from dealias.data.pictures import EXTENSIONS, read_picture
from dealias.errors import InputError
from dealias.files import write_whole
from dealias.metrics import clustered_wilson_interval
from dealias.metrics.site_profile import profile_model
from dealias.models import efficientnet_lite0
from dealias.repair.distillation import norms_train, reestimate_statistics
from dealias.repair.domain import near_duplicates
from dealias.repair.losses import averaged_logits, features_at, logit_loss
from dealias.training.run_folder import state_content

FOLDER, PAGE = Path("runs/recipes"), Path("docs/repair.md")
RESULTS, LONG, STATE = (FOLDER / name for name in ("results.jsonl", "long.json", "long.pt"))
SETS = ("photographs", "held-out pictures")
STORED, WINDOW, ROOM = 224, 160, 32
"""Pixels: the short side of a stored picture, of what the network sees, and of the room in which two crops differ."""
BATCH, POINTS, SAVE_SECONDS = 24, 12, 60
"""Windows in a step; points of the long run's curve; seconds between two states."""


@dataclass(frozen=True)
class Recipe:
    """How the converted network is trained.

    Attributes:
        filter: of the sites that are converted.
        converted: how many of the four sites: those that add most shift-variance to the original, by its profile.
        temperature: of the logits' Kullback-Leibler divergence; 0 leaves the logits out.
        features: where features are compared: at the "sites", behind each of the seven "stages", or "none".
        local: every stage learns from its own loss alone: gradients do not pass from one stage to the one before.
        average: learn from the original's mean over the window and four shifts of it.
        least_squares: first solve for the convolutions next to a blur.
        norms: batch norms "train", stay as they were "estimated" again, or are "kept" as the original's.
        optimizer, rate: "sgd" or "adam", and the peak of the learning rate.
    """

    filter: str = "bin4"
    converted: int = 4
    temperature: float = 2.0
    features: str = "sites"
    local: bool = False
    average: bool = False
    least_squares: bool = False
    norms: str = "train"
    optimizer: str = "sgd"
    rate: float = 0.01


RECIPES = {
    "batch norms alone": Recipe(rate=0.0),
    "as `dealias repair`": Recipe(),
    "logits alone": Recipe(features="none"),
    "features behind every stage": Recipe(features="stages"),
    "features alone, behind every stage": Recipe(features="stages", temperature=0.0),
    "each stage by itself": Recipe(features="stages", temperature=0.0, local=True),
    "least squares first": Recipe(least_squares=True),
    "temperature 1": Recipe(temperature=1.0),
    "mean over shifts": Recipe(average=True),
    "batch norms estimated, then fixed": Recipe(norms="estimated"),
    "Adam": Recipe(optimizer="adam", rate=1e-3),
    "Adam, lower rate": Recipe(optimizer="adam", rate=3e-4),
    "Adam, features behind every stage": Recipe(optimizer="adam", rate=1e-3, features="stages"),
    "Adam, stages, least squares first": Recipe(optimizer="adam", rate=1e-3, features="stages", least_squares=True),
    "tri3": Recipe(filter="tri3"),
    "rect2": Recipe(filter="rect2"),
    "rect2, not trained": Recipe(filter="rect2", norms="kept", rate=0.0),
    "Adam, stages, two sites": Recipe(optimizer="adam", rate=1e-3, features="stages", converted=2),
    "Adam, stages, tri3": Recipe(optimizer="adam", rate=1e-3, features="stages", filter="tri3"),
    "Adam, stages, rect2": Recipe(optimizer="adam", rate=1e-3, features="stages", filter="rect2"),
    "Adam, stages, rect2, two sites": Recipe("rect2", 2, optimizer="adam", rate=1e-3, features="stages"),
    "rect2, two sites, Adam at 0.0001": Recipe("rect2", 2, optimizer="adam", rate=1e-4, features="stages"),
    "rect2, two sites, the original's batch norms": Recipe(
        "rect2", 2, norms="kept", optimizer="adam", rate=1e-4, features="stages"
    ),
    "rect2, two sites, not trained": Recipe("rect2", 2, norms="kept", rate=0.0),
    "rect2, the original's batch norms": Recipe("rect2", norms="kept", optimizer="adam", rate=1e-4, features="stages"),
    "rect2, two sites, as `dealias repair --keep-norms --learning-rate 0.001`": Recipe(
        "rect2", 2, norms="kept", rate=1e-3
    ),
    "bin4, the original's batch norms": Recipe(norms="kept", optimizer="adam", rate=1e-4, features="stages"),
    "bin4, two sites, the original's batch norms": Recipe(
        converted=2, norms="kept", optimizer="adam", rate=1e-4, features="stages"
    ),
}


def read(folders: Sequence[Path]) -> list[Tensor]:
    """The pictures uint8 (3, H, W) of some folders, the short side of `STORED` pixels, each once."""
    found, seen = [], set()
    paths = sorted(path for folder in folders for path in folder.rglob("*") if path.suffix.lower() in EXTENSIONS)
    for path in track(paths, "reading"):
        try:
            picture = read_picture(path)
        except InputError:
            continue
        if min(picture.size) < WINDOW:
            continue
        scale = STORED / min(picture.size)
        size = [max(round(side * scale), STORED) for side in picture.size]
        pixels = np.asarray(picture.resize(size, Image.Resampling.LANCZOS, reducing_gap=3))
        key = pixels[::32, ::32].tobytes()
        if max(size) <= 3 * STORED and pixels.std() > 20 and key not in seen:  # not empty, not a strip, not twice
            seen.add(key)
            found.append(torch.from_numpy(pixels.copy()).permute(2, 0, 1))
    return found


class Windows:
    """Windows of pictures, normalised as the network expects them."""

    def __init__(self, pictures: Sequence[Tensor]) -> None:
        self.pictures = pictures
        entropies = np.array([*map(entropy, pictures)])
        self._chances = entropies / entropies.sum()

    def random(self, count: int, draw: np.random.Generator) -> Tensor:
        """Windows (count, 3, 192, 192) of 60% to 100% of a picture's height, at a random place, some mirrored.

        A photograph is drawn more often than a drawing: in proportion to the entropy of its colours.
        """
        windows = []
        for number in draw.choice(len(self.pictures), count, p=self._chances):
            picture = self.pictures[number]
            side = round(draw.uniform(0.6, 1) * min(picture.shape[1:]))
            top, left = (int(draw.integers(size - side + 1)) for size in picture.shape[1:])
            window = picture[None, :, top : top + side, left : left + side].float()
            window = F.interpolate(window, (WINDOW + ROOM,) * 2, mode="bilinear", antialias=True)
            windows.append(window.flip(3) if draw.random() < 0.5 else window)
        return normalise(torch.cat(windows))

    def centres(self) -> Tensor:
        """The middle (N, 3, 192, 192) of each picture."""
        size = WINDOW + ROOM
        middles = []
        for picture in self.pictures:
            top, left = ((side - min(picture.shape[1:])) // 2 for side in picture.shape[1:])
            square = picture[None, :, top : top + min(picture.shape[1:]), left : left + min(picture.shape[1:])]
            middles.append(F.interpolate(square.float(), (size, size), mode="bilinear", antialias=True))
        return normalise(torch.cat(middles))


def entropy(picture: Tensor) -> float:
    """The entropy in bits of a picture's colours, in 32 steps of each channel."""
    red, green, blue = (picture.flatten(1) // 8).long()
    counts = (red * 1024 + green * 32 + blue).unique(return_counts=True)[1].double()
    return float(-(counts / counts.sum() * (counts / counts.sum()).log2()).sum())


def split(pictures: Sequence[Tensor]) -> tuple[Windows, Windows]:
    """Windows of the pictures to train on, and of every eighteenth; none of the first looks like one of the others."""
    centres = Windows(pictures).centres()
    held = [*range(0, len(pictures), 18)]
    others = [number for number in range(len(pictures)) if number % 18]
    alike = set(near_duplicates(centres, held, others))
    return Windows([pictures[number] for number in others if number not in alike]), Windows(pictures[::18])


def normalise(pixels: Tensor) -> Tensor:
    """Bytes 0 to 255 as EfficientNet-Lite0 expects them."""
    return (pixels.clamp(0, 255) - 127) / 128


def window(images: Tensor, top: int, left: int) -> Tensor:
    """What the network sees at a place."""
    return images[:, :, top : top + WINDOW, left : left + WINDOW]


@torch.no_grad()
def classes(network: nn.Module, images: Tensor, places: Sequence[tuple[int, int]]) -> Tensor:
    """Top-1 classes (places, N)."""
    network.eval()
    return torch.stack([network(window(images, *place)).argmax(1) for place in places])


def measure(network: nn.Module, original: nn.Module, images: Tensor) -> dict[str, Any]:
    """Agreement with the original on five windows of each image, and consistency on eight pairs of windows."""
    places = [(16, 16), (0, 0), (0, 31), (31, 0), (31, 31)]
    agreement = (classes(network, images, places) == classes(original, images, places)).double().mean(0)
    draw = np.random.default_rng(0)
    pairs = [tuple(map(int, place)) for place in draw.integers(ROOM, size=(16, 2))]
    seen = classes(network, images, pairs)
    consistency = (seen[::2] == seen[1::2]).double().mean(0)
    found = {}
    for name, shares in (("agreement", agreement), ("consistency", consistency)):
        found[name] = float(shares.mean())
        found[f"{name}_error"] = float(shares.std() / math.sqrt(len(shares)))
        trials = len(places) if name == "agreement" else len(pairs) // 2
        found[f"{name}_interval"] = clustered_wilson_interval((shares * trials).tolist(), trials)
    return found


def stages(network: Any) -> list[str]:
    """The paths of the seven stages."""
    return [f"blocks.{number}" for number in range(len(network.blocks))]


class Training:
    """The training of a converted network by a recipe, until its CPU time is used up.

    Attributes:
        seconds, used: the CPU time in seconds, and how much of it is used up.
        windows_seen: the number of windows that the network has seen.
    """

    def __init__(self, recipe: Recipe, original: Any, data: Windows, seconds: float) -> None:
        self.recipe, self.original, self.data = recipe, original, data
        self.seconds, self.used, self.windows_seen = seconds, 0.0, 0
        self.draw = np.random.default_rng(0)
        filters = dict.fromkeys(SITES, "none") | dict.fromkeys(self._chosen(), recipe.filter)
        model = antialias(original, torch.zeros(1, 3, WINDOW, WINDOW), filter=filters)
        self.model: Any = model.to(memory_format=torch.channels_last)  # faster on a CPU
        self._optimizer = self._new_optimizer()

    def steps(self) -> Iterator[float]:
        """Estimate the batch norms again, solve if the recipe says so, and train; gives the share of the time used."""
        started = time.process_time()
        if not self.windows_seen and self.recipe.norms != "kept":
            reestimate_statistics(self.model, (self._windows()[0] for _ in range(16)))
            if self.recipe.least_squares:
                self._solve()
        while self.recipe.rate and (done := (self.used + time.process_time() - started) / self.seconds) < 1:
            for group in self._optimizer.param_groups:
                group["lr"] = self.recipe.rate * min(10 * done, 0.5 + 0.5 * math.cos(math.pi * done))
            loss = self._loss(*self._windows())
            self._optimizer.zero_grad(set_to_none=True)
            loss.backward()
            self._optimizer.step()
            self.used += time.process_time() - started
            yield self.used / self.seconds
            started = time.process_time()

    def state(self) -> dict[str, Any]:
        """What `load` goes on from."""
        parts = {"model": self.model.state_dict(), "optimizer": self._optimizer.state_dict()}
        return {**parts, "used": self.used, "windows_seen": self.windows_seen, "draw": self.draw.bit_generator.state}

    def load(self, state: Mapping[str, Any]) -> None:
        """Go on from a state."""
        self.model.load_state_dict(state["model"])
        self._optimizer.load_state_dict(state["optimizer"])
        self.used, self.windows_seen = state["used"], state["windows_seen"]
        self.draw.bit_generator.state = state["draw"]

    def _chosen(self) -> list[str]:
        """The sites to convert."""
        if self.recipe.converted == len(SITES):
            return SITES
        profile = profile_model(self.original, window(Windows(self.data.pictures[:4]).centres(), 0, 0))
        return [site.path for site in profile.ranked() if site.path in SITES][: self.recipe.converted]

    def _new_optimizer(self) -> torch.optim.Optimizer:
        parameters = [each for each in self.model.parameters() if each.requires_grad]
        if self.recipe.optimizer == "adam":
            return torch.optim.AdamW(parameters, self.recipe.rate, weight_decay=0.0)
        return torch.optim.SGD(parameters, self.recipe.rate, momentum=0.9, nesterov=True)

    def _windows(self) -> tuple[Tensor, Tensor]:
        """Windows to learn from, and the larger images that they lie in."""
        images = self.data.random(BATCH, self.draw)
        top, left = self.draw.integers(ROOM, size=2)
        self.windows_seen += BATCH
        return window(images, int(top), int(left)), images

    def _loss(self, seen: Tensor, images: Tensor) -> Tensor:
        recipe = self.recipe
        paths = {"sites": SITES, "stages": stages(self.model), "none": []}[recipe.features]
        norms_train(self.model) if recipe.norms == "train" else self.model.eval()
        with features_at(self.original, paths) as theirs, features_at(self.model, paths) as ours, torch.no_grad():
            wanted = self.original(seen)
            their_features = dict(theirs)
            with torch.enable_grad(), separated(self.model, recipe.local):
                logits = self.model(seen)
        with torch.no_grad():
            if recipe.average:
                places = self.draw.integers(ROOM, size=(4, 2))
                others = [self.original(window(images, int(top), int(left))) for top, left in places]
                wanted = averaged_logits(torch.stack([wanted, *others], 1), recipe.temperature)
        loss = torch.zeros(())
        if recipe.temperature:
            loss = loss + logit_loss(logits, wanted, recipe.temperature)
        if paths:
            pairs = [(sampled(ours[path], their_features[path]), their_features[path]) for path in paths]
            loss = loss + torch.stack([F.mse_loss(our, their) / their.square().mean() for our, their in pairs]).mean()
        return loss

    @torch.no_grad()
    def _solve(self) -> None:
        """Fit the pointwise convolution behind each blur to the original's outputs by ridge regression."""
        for path in NEXT_TO_BLURS:
            ours, theirs = self.model.get_submodule(path), self.original.get_submodule(path)
            inputs: list[Tensor] = []
            outputs: list[Tensor] = []
            hooks = [
                ours.register_forward_pre_hook(lambda module, given, kept=inputs: kept.append(given[0])),
                theirs.register_forward_hook(lambda module, given, output, kept=outputs: kept.append(output)),
            ]
            gram: Any = 0.0
            moment: Any = 0.0
            for _ in range(10):
                seen = self._windows()[0]
                self.model.eval()(seen)
                self.original(seen)
                x = inputs.pop().movedim(1, -1).flatten(0, -2).double()
                y = outputs.pop().movedim(1, -1).flatten(0, -2).double()
                gram, moment = gram + x.T @ x, moment + x.T @ y
            for hook in hooks:
                hook.remove()
            ridge = 1e-3 * gram.diagonal().mean() * torch.eye(len(gram), dtype=torch.float64)
            start = theirs.weight.flatten(1).T.double()
            solution = torch.linalg.solve(gram + ridge, moment + ridge @ start)
            ours.weight.copy_(solution.T.float().view_as(ours.weight))
        reestimate_statistics(self.model, (self._windows()[0] for _ in range(8)))


@contextmanager
def separated(model: nn.Module, active: bool) -> Iterator[None]:
    """While open: gradients do not pass from a stage to the one before."""

    def detach(module: nn.Module, given: tuple[Any, ...]) -> tuple[Any, ...]:
        return given[0].detach(), *given[1:]

    hooks = [model.get_submodule(path).register_forward_pre_hook(detach) for path in stages(model)] if active else []
    try:
        yield
    finally:
        for hook in hooks:
            hook.remove()


def sampled(ours: Tensor, theirs: Tensor) -> Tensor:
    """Features on the grid that the original samples."""
    step = round(ours.shape[-1] / theirs.shape[-1])
    return ours[..., ::step, ::step]


SITES = [f"blocks.{number}.0.conv_dw" for number in (1, 2, 3, 5)]
NEXT_TO_BLURS = [f"blocks.{number}.0.conv_pwl" for number in (1, 2, 3, 5)]


@dataclass(frozen=True)
class Setting:
    """What all runs have in common: the original, the pictures to train on, and the images to measure on, by name."""

    original: nn.Module
    kept: Windows
    sets: dict[str, Tensor]

    @staticmethod
    def of(asked: argparse.Namespace) -> Setting:
        """Read the pictures that were asked for."""
        kept, held = split(read(asked.pictures))
        sets = (Windows(read([asked.photographs])).centres(), held.centres())
        original = efficientnet_lite0().to(memory_format=torch.channels_last)
        return Setting(original, kept, dict(zip(SETS, sets, strict=True)))

    def figures(self, network: nn.Module) -> dict[str, Any]:
        """How a network does on each set."""
        return {name: measure(network, self.original, images) for name, images in self.sets.items()}


def run(asked: argparse.Namespace) -> None:
    """Run the recipes that have no result yet."""
    setting = Setting.of(asked)
    records = [json.loads(line) for line in RESULTS.read_text().splitlines()] if RESULTS.exists() else []
    done = {record["name"] for record in records if record["seconds"] == asked.seconds}
    for name in ["the original", *RECIPES]:
        if name in done or (asked.names and name not in asked.names):
            continue
        torch.manual_seed(0)
        network, windows = setting.original, 0
        if name in RECIPES:
            training = Training(RECIPES[name], setting.original, setting.kept, asked.seconds)
            deque(training.steps(), maxlen=0)
            network, windows = training.model, training.windows_seen
        about = {"seconds": asked.seconds, "pictures": len(setting.kept.pictures), "windows": windows}
        record = {"name": name, **about, **setting.figures(network)}
        with RESULTS.open("a") as file:
            file.write(json.dumps(record) + "\n")
        print(json.dumps(record), flush=True)


def run_long(asked: argparse.Namespace) -> None:
    """Train by one recipe; measure, and write the curve, on the way. Goes on from the last state, if there is one."""
    setting, (name,) = Setting.of(asked), asked.names
    torch.manual_seed(0)
    training = Training(RECIPES[name], setting.original, setting.kept, asked.seconds)
    found: dict[str, Any] = {"name": name, "seconds": asked.seconds, "pictures": len(setting.kept.pictures)}
    if STATE.exists():
        state = torch.load(STATE, weights_only=True)
        if (state["found"]["name"], state["found"]["seconds"]) != (name, asked.seconds):
            raise SystemExit(f"{STATE} is of another long run, {state['found']['name']!r}: move it away first")
        training.load(state)
        found = state["found"]
    else:
        found["curve"] = [{"network": "the original", **setting.figures(setting.original)}]
        found["curve"].append({"network": "converted", **setting.figures(training.model)})
    saved = time.monotonic()
    for done in training.steps():
        is_point = done >= min((len(found["curve"]) - 1) / POINTS, 1)
        if is_point:
            about = {"network": "repaired", "windows": training.windows_seen, "seconds": training.used}
            found["curve"].append({**about, **setting.figures(training.model)})
            write_whole(LONG, json.dumps(found, indent=1) + "\n")
            print(json.dumps(found["curve"][-1]), flush=True)
        if is_point or time.monotonic() - saved > SAVE_SECONDS:
            write_whole(STATE, state_content({**training.state(), "found": found}))
            saved = time.monotonic()


def table() -> None:
    """Write the tables of docs/repair.md: of the recipes, and of the long run if there is one."""
    rows = []
    order = ["the original", *RECIPES]
    records = [json.loads(line) for line in RESULTS.read_text().splitlines()]
    for record in sorted(records, key=lambda record: order.index(record["name"])):
        row = {"recipe": record["name"], "CPU s": f"{record['seconds']:.0f}", "pictures": record["pictures"]}
        row["windows"] = record["windows"] or ""
        for name in SETS:
            for key in ("agreement", "consistency"):
                row[f"{name}: {key}"] = f"{record[name][key]:.1%} ± {record[name][f'{key}_error']:.1%}"
        rows.append(row)
    replace_section(PAGE, "repair_recipes.py", as_markdown(rows, ["CPU s", "pictures", "windows"]))
    if LONG.exists():
        rows = []
        for point in json.loads(LONG.read_text())["curve"]:
            row = {"network": point["network"], "windows": point.get("windows", "")}
            row["CPU s"] = f"{point['seconds']:.0f}" if "seconds" in point else ""
            for name in SETS:
                for key in ("agreement", "consistency"):
                    low, high = point[name][f"{key}_interval"]
                    row[f"{name}: {key}"] = f"{point[name][key]:.1%} ({low:.1%} to {high:.1%})"
            rows.append(row)
        replace_section(PAGE, "repair_recipes.py: long", as_markdown(rows, ["windows", "CPU s"]))


def main() -> None:
    """Run the recipes, or write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=("run", "long", "table"))
    parser.add_argument("names", nargs="*", help="recipes; default: all")
    parser.add_argument("--pictures", type=Path, nargs="+")
    parser.add_argument("--photographs", type=Path)
    parser.add_argument("--seconds", type=float, default=100, help="of CPU time for each recipe")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    FOLDER.mkdir(parents=True, exist_ok=True)
    {"run": run, "long": run_long, "table": lambda asked: table()}[asked.what](asked)


if __name__ == "__main__":
    main()
