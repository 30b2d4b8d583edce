"""Repair without labels on digits, over seeds and numbers of pictures: a table of docs/repair.md.

    make repair-digits

For each seed: a baseline trained on 4,000 digits as the demo's, anti-aliased, repaired on the same 4,000 without
labels, and on a tenth of them for as many steps; measured on the 1,000 that no training saw.
"""

from __future__ import annotations

from typing import Any

import torch
from tables import as_markdown, replace_section, script_parser
from torch import nn

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
PICTURES = (4000, 400)


def baseline(seed: int) -> nn.Module:
    """The network to repair."""
    train, _ = digits_split(seed)
    torch.manual_seed(seed)
    original = create_model("dealias:vgg_small", padding_mode="circular")
    fit(original, train.images, train.labels, epochs=8, batch_size=64, learning_rate=0.1, seed=seed)
    return original


def rows_of(original: nn.Module, seed: int, pictures: int, epochs: int, average_shifts: bool) -> list[dict[str, Any]]:
    """Repair with the first `pictures` digits, for as many steps as `epochs` of all; a row for each stage."""
    train, test = digits_split(seed)
    results = repair(
        original,
        torch.cat([train.images[:pictures], test.images]),
        targets=torch.cat([train.labels[:pictures], test.labels]),
        held_out=range(pictures, pictures + len(test.images)),
        epochs=epochs * len(train.images) // pictures,
        average_shifts=average_shifts,
        seed=seed,
    ).results
    return [
        {
            "seed": seed,
            "pictures": pictures if stage in ("reestimated", "repaired") else "",
            "network": title,
            **{name: f"{100 * results[stage][name]:.1f}" if name in results[stage] else "" for name in COLUMNS},
        }
        for stage, title in STAGES.items()
        if stage in ("reestimated", "repaired") or pictures == PICTURES[0]
    ]


def main() -> None:
    """Repair, and write the table."""
    parser = script_parser(__doc__)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--average-shifts", action="store_true")
    asked = parser.parse_args()
    rows: list[dict[str, Any]] = []
    for seed in range(asked.seeds):
        original = baseline(seed)
        for pictures in PICTURES:
            rows += rows_of(original, seed, pictures, asked.epochs, asked.average_shifts)
            print(as_markdown(rows), flush=True)
    if asked.markdown is not None:
        replace_section(asked.markdown, "repair_digits.py", as_markdown(rows))


if __name__ == "__main__":
    main()
