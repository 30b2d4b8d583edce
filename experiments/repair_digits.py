"""Repair without labels on digits, over seeds: the figures of docs/repair.md.

    python experiments/repair_digits.py --seeds 2

For each seed: a baseline trained on 4,000 digits as the demo's, anti-aliased, repaired on the same 4,000 without
labels, measured on the 1,000 that neither training saw.
"""

from __future__ import annotations

import argparse

import torch

from dealias.data import digits_split
from dealias.models import create_model
from dealias.repair import repair
from dealias.training import fit

STAGES = {
    "original": "original",
    "converted": "converted, no training",
    "reestimated": "batch-norm statistics re-estimated",
    "repaired": "repaired",
}
COLUMNS = ("agreement", "consistency", "accuracy")


def main() -> None:
    """Print the table in Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--average-shifts", action="store_true")
    asked = parser.parse_args()
    _show("seed", "network", *COLUMNS)
    _show(*["---"] * (2 + len(COLUMNS)))
    for seed in range(asked.seeds):
        train, test = digits_split(seed)
        torch.manual_seed(seed)
        original = create_model("dealias:vgg_small", padding_mode="circular")
        fit(original, train.images, train.labels, epochs=8, batch_size=64, learning_rate=0.1, seed=seed)
        results = repair(
            original,
            torch.cat([train.images, test.images]),
            targets=torch.cat([train.labels, test.labels]),
            held_out=range(len(train.images), len(train.images) + len(test.images)),
            epochs=asked.epochs,
            average_shifts=asked.average_shifts,
            seed=seed,
        ).results
        for stage, title in STAGES.items():
            shares = [f"{100 * results[stage][name]:.1f}" if name in results[stage] else "" for name in COLUMNS]
            _show(str(seed), title, *shares)


def _show(*cells: str) -> None:
    print(f"| {' | '.join(cells)} |", flush=True)


if __name__ == "__main__":
    main()
