"""A cell of the experiment: one network, trained in one way from one seed, and measured."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from images import Images, as_input, corrupted, sequences
from records import Records
from torch import Tensor, nn

from dealias import antialias
from dealias.files import prepare_output, write_whole
from dealias.metrics import measure_consistencies, wilson_interval
from dealias.metrics.robustness import flip_rate
from dealias.metrics.views import Mode
from dealias.models import create_model, load_weights
from dealias.optional import require
from dealias.perturb import circular_shift, zero_fill_shift
from dealias.perturb.corruptions import CORRUPTIONS
from dealias.perturb.sequences import NOISE_PERTURBATIONS
from dealias.runtime import versions
from dealias.training import fit

FILTERS = ("none", "rect2", "tri3", "bin4", "bin5", "bin7")
METHODS = ("scratch", "convert", "repair", "finetune")
COMPARED = "bin4"  # the filter with which the methods are compared
SETUPS = [("circular", False), ("zeros", False), ("circular", True), ("zeros", True)]  # padding and shift augmentation
# the filters and setups of the whole experiment, and of its quick form
EXTENT = {"fashion": (FILTERS, SETUPS), "digits": (("none", COMPARED, "rect2"), SETUPS[:1])}
CIRCULAR_REACH, ZERO_FILL_REACH = 16, 3


@dataclass(frozen=True)
class Cell:
    """A network and its training.

    Attributes:
        data: "fashion" or "digits".
        network: "vgg_small" or "vgg13_bn_cifar".
        padding: padding of the convolutions, "circular" or "zeros".
        augment: whether training images are shifted at random.
        filter: filter of the anti-aliasing; "none" is the baseline.
        method: "scratch"; or, from the baseline of the same seed, "convert" (no training), "repair" (without labels) or
            "finetune" (with labels, a tenth of the learning rate).
        epochs: epochs of training; for repair and finetune those of the baseline, and as many again.
        seed: seed of the weights and of the order of the images.
    """

    data: str
    network: str
    padding: str
    augment: bool
    filter: str
    method: str
    epochs: int
    seed: int

    @property
    def name(self) -> str:
        """The name of the cell's record and of its weights."""
        shifted = "shifted" if self.augment else "plain"
        return "-".join(
            [
                self.data,
                self.network,
                self.padding,
                shifted,
                self.filter,
                self.method,
                f"epochs{self.epochs}",
                f"seed{self.seed}",
            ]
        )

    @property
    def baseline(self) -> Cell:
        """The baseline of the same seed, whose weights this cell starts from."""
        return replace(self, filter="none", method="scratch")


@dataclass(frozen=True)
class Settings:
    """The settings of all cells of a run.

    Attributes:
        batch_size, learning_rate: of training from scratch (SGD, Nesterov momentum .9, one-cycle).
        precision: precision of training: "bf16" (autocast) or "float32"; measurements are in float32.
        consistency_images, diagonal_images, sequence_images, corruption_images: number of test images, from the first
            on, in each measurement.
    """

    batch_size: int = 64
    learning_rate: float = 0.1
    precision: str = "bf16"
    consistency_images: int = 2000
    diagonal_images: int = 300
    sequence_images: int = 100
    corruption_images: int = 300


class Learner(nn.Module):
    """The network during training, which shifts its images at random and may run under autocast.

    Args:
        network: maps images to logits.
        shift: "circular" rolls each image by up to half its side; "zeros" moves it by up to 3 pixels, and zeros enter;
            None leaves it.
        precision: "bf16" or "float32".
    """

    def __init__(self, network: nn.Module, shift: str | None, precision: str) -> None:
        super().__init__()
        self.network, self.shift, self.precision = network, shift, precision

    def forward(self, images: Tensor) -> Tensor:
        """Images (N, C, H, W) to float32 logits."""
        if self.shift is not None:
            circular = self.shift == "circular"
            low, high = (-CIRCULAR_REACH, CIRCULAR_REACH) if circular else (-ZERO_FILL_REACH, ZERO_FILL_REACH + 1)
            dy, dx = torch.randint(low, high, (2, len(images)), device=images.device)
            images = (circular_shift if circular else zero_fill_shift)(images, dy, dx)
        with torch.autocast(images.device.type, torch.bfloat16, enabled=self.precision == "bf16"):
            return self.network(images).float()


class Laboratory:
    """Runs each cell once.

    Args:
        images: the data.
        settings: of all cells.
        results: file of the records.
        work: folder of weights and perturbed images, which can be made again.
        device: where networks run.
        say: called with a line of text on each cell.
    """

    def __init__(
        self, images: Images, settings: Settings, results: Path, work: Path, device: str, say: Callable[[str], None]
    ) -> None:
        self.images, self.settings, self.device, self.say = images, settings, torch.device(device), say
        self.records, self.work = Records(results), prepare_output(work)
        prepare_output(results.parent)

    def is_done(self, cell: Cell) -> bool:
        """Whether the cell has a record from a run with the same settings."""
        record = self.records.read().get(cell.name)
        return record is not None and record["settings"] == asdict(self.settings)

    def run(self, cell: Cell) -> None:
        """Train, measure and write a cell, unless that is done."""
        if self.is_done(cell):
            return
        started = time.monotonic()
        network, notes = self._train(cell)
        trained = time.monotonic()
        measured = self._measure(network)
        record = {
            "cell": asdict(cell),
            "settings": asdict(self.settings),
            "measured": measured | notes,
            "run": {
                "device": torch.cuda.get_device_name() if self.device.type == "cuda" else "CPU",
                "training_seconds": round(trained - started, 1),
                "measuring_seconds": round(time.monotonic() - trained, 1),
                "train_images": len(self.images.train),
                "test_images": len(self.images.test),
                "versions": versions(),
            },
        }
        self.records.add(cell.name, record)
        shares = ", ".join(
            f"{name.partition('_consistency')[0].replace('_', '-')} {measured[name]:.4f}"
            for name in ("accuracy", "circular_consistency", "zero_fill_consistency")
        )
        self.say(f"{cell.name}: {shares}; {trained - started:.0f} s + {time.monotonic() - trained:.0f} s")

    def _train(self, cell: Cell) -> tuple[nn.Module, dict[str, Any]]:
        torch.manual_seed(cell.seed)
        network = create_model(f"dealias:{cell.network}", padding_mode=cell.padding, in_chans=1)
        weights = self.work / "weights" / f"{cell.name}.safetensors"
        if cell.method != "scratch":
            self.run(cell.baseline)
            load_weights(network, self._weights_of(cell.baseline))
        original = network
        if cell.filter != "none":
            network = antialias(network, torch.zeros(1, 1, 32, 32), filter=cell.filter)
        network = network.to(self.device, memory_format=torch.channels_last)  # convolutions are faster in it
        notes: dict[str, Any] = {}
        if cell.method == "repair":
            # the other cells do not need it
            from dealias.repair import repair

            outcome = repair(
                original.to(self.device),
                as_input(self.images.train),
                converted=network,
                epochs=cell.epochs,
                seed=cell.seed,
            )
            network = outcome.model
            notes["repair_agreement"] = outcome.results["repaired"]["agreement"]
        elif cell.method != "convert":
            self._fit(network, cell)
        prepare_output(weights.parent)
        tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in network.state_dict().items()}
        write_whole(weights, require("safetensors.torch").save(tensors))
        return network.eval(), notes

    def _weights_of(self, baseline: Cell) -> Path:
        """The file of the baseline's weights; it is trained again where only its record exists."""
        path = self.work / "weights" / f"{baseline.name}.safetensors"
        if not path.is_file():
            self.say(f"{baseline.name}: its weights are not in {self.work}: training it again")
            self._train(baseline)
        return path

    def _fit(self, network: nn.Module, cell: Cell) -> None:
        torch.manual_seed(cell.seed)  # of the random shifts
        fit(
            Learner(network, cell.padding if cell.augment else None, self.settings.precision),
            as_input(self.images.train).to(self.device),
            self.images.train_labels.to(self.device),
            epochs=cell.epochs,
            batch_size=self.settings.batch_size,
            learning_rate=self.settings.learning_rate / (10 if cell.method == "finetune" else 1),
            seed=cell.seed,
        )

    def _measure(self, network: nn.Module) -> dict[str, Any]:
        """All shares, in [0, 1]; every cell has the same test images and shifts."""
        images, labels, settings = self.images.test, self.images.test_labels, self.settings
        right = int((self._predict(network, images).argmax(1) == labels).sum())
        measured: dict[str, Any] = {"accuracy": right / len(labels)}
        measured["accuracy_interval"] = wilson_interval(right, len(labels))
        shown = as_input(images[: settings.consistency_images])
        modes: dict[Mode, dict[str, int]] = {
            "circular": {"max_shift": CIRCULAR_REACH},
            "zero_fill": {"max_shift": ZERO_FILL_REACH},
        }
        for mode, result in measure_consistencies(network, shown, modes, batch_size=500).items():
            measured[f"{mode}_consistency"] = result.consistency
            measured[f"{mode}_consistency_interval"] = result.interval
        measured |= self._variation(network)
        pixels = torch.from_numpy(corrupted(self.images, settings.corruption_images, self.work))
        wrong = self._predict(network, pixels.flatten(0, 2)).argmax(1).view(pixels.shape[:3])
        errors = (wrong != labels[: pixels.shape[2]]).float().mean((1, 2))
        measured["corruption_error"] = float(errors.mean())
        measured["corruption_errors"] = {name: float(error) for name, error in zip(CORRUPTIONS, errors, strict=True)}
        rates = {}
        for name, frames in sequences(self.images, settings.sequence_images, self.work).items():
            classes = self._predict(network, torch.from_numpy(frames).flatten(0, 1)).argmax(1).view(frames.shape[:2])
            rates[name] = float(flip_rate(classes, noise=name in NOISE_PERTURBATIONS))
        measured["flip_rate"] = sum(rates.values()) / len(rates)
        measured["flip_rates"] = rates
        return measured

    def _variation(self, network: nn.Module) -> dict[str, float]:
        """Mean |change of P(correct)| from one pixel to the next along the diagonal, for both kinds of shift."""
        images = as_input(self.images.test[: self.settings.diagonal_images])
        labels = self.images.test_labels[: len(images)]
        variation = {}
        for kind, shift, low, high in (
            ("circular", circular_shift, -CIRCULAR_REACH, CIRCULAR_REACH - 1),
            ("zero_fill", zero_fill_shift, -ZERO_FILL_REACH, ZERO_FILL_REACH),
        ):
            columns = [
                self._logits(network, shift(images, step, step)).softmax(1).gather(1, labels[:, None])
                for step in range(low, high + 1)
            ]
            variation[f"{kind}_variation"] = float(torch.cat(columns, 1).diff(dim=1).abs().mean())
        return variation

    def _predict(self, network: nn.Module, pixels: Tensor) -> Tensor:
        return torch.cat([self._logits(network, as_input(part)) for part in pixels.split(2000)])

    def _logits(self, network: nn.Module, images: Tensor) -> Tensor:
        with torch.inference_mode():
            return torch.cat([network(part.to(self.device)).float().cpu() for part in images.split(250)])
