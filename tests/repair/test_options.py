"""The options of a repair check themselves."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pytest

from dealias.errors import InputError
from dealias.repair import RepairOptions


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"epochs": 0}, "epochs=0: it must be greater than 0"),
        ({"batch_size": 1}, "batch_size=1: it must be greater than or equal to 2"),
        ({"min_agreement": 98}, "min_agreement=98: it must be less than or equal to 1"),
        ({"held_out": 1.0}, "held_out=1.0: it must be less than 1"),
        ({"held_out": 0}, "held_out=0: it must be greater than 0"),
        ({"learning_rate": 0.0}, "learning_rate=0.0: it must be greater than 0"),
        ({"learning_rate": float("nan")}, "learning_rate=nan: it must be a finite number"),
        ({"feature_weight": -1.0}, "feature_weight=-1.0: it must be greater than or equal to 0"),
        ({"average_shifts": 3}, "average_shifts=3: it must be a valid boolean"),
        ({"epoch": 3}, "unknown key 'epoch': did you mean epochs?"),
    ],
)
def test_an_option_out_of_range_is_one_clear_error(options: dict[str, Any], message: str) -> None:
    with pytest.raises(InputError) as caught:
        RepairOptions(**options)
    assert message in str(caught.value)


@pytest.mark.parametrize("numbers", [range(3), np.arange(3), [0, 1, 2], (0, 1, 2)])
def test_numbers_of_images_become_plain(numbers: Any) -> None:
    made = RepairOptions(held_out=numbers, min_agreement=np.float64(0.5))
    assert json.loads(json.dumps(made.identity()))["held_out"] == [0, 1, 2]
    assert made.min_agreement == 0.5


def test_what_is_asked_of_the_result_does_not_change_the_weights() -> None:
    assert RepairOptions(min_agreement=0.1, min_consistency=0.1, epochs=9).identity() == RepairOptions().identity()
    assert RepairOptions(seed=1).identity() != RepairOptions().identity()
