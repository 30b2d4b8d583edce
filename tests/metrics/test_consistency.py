from __future__ import annotations

import copy
import pickle
from itertools import cycle

import numpy as np
import pytest
import torch
from scipy import stats

from dealias.errors import InputError, InputTypeError
from dealias.metrics import ShiftConsistency, shift_consistency


@pytest.fixture
def pairs() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    logits = torch.randn(300, 6, generator=generator)
    return logits, logits + 0.5 * torch.randn(300, 6, generator=generator)


def test_share_of_equal_top1(pairs: tuple[torch.Tensor, torch.Tensor]) -> None:
    first, second = pairs
    expected = np.mean(first.numpy().argmax(1) == second.numpy().argmax(1))
    assert 0.5 < expected < 1
    assert shift_consistency(first, second).item() == pytest.approx(expected)
    assert shift_consistency(first.argmax(1), second.argmax(1)) == shift_consistency(first, second)
    assert shift_consistency(first, second.argmax(1)) == shift_consistency(first, second)
    assert shift_consistency(first.bfloat16(), first.bfloat16()) == 1


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_metric_accumulates_exactly(pairs: tuple[torch.Tensor, torch.Tensor]) -> None:
    first, second = pairs
    metric = ShiftConsistency()
    batch_values = [metric(a, b) for a, b in zip(first.split(77), second.split(77), strict=True)]
    assert batch_values[0] == shift_consistency(first[:77], second[:77])
    agreements = int((first.argmax(1) == second.argmax(1)).sum())
    assert metric.agreements.dtype == torch.int64
    assert (int(metric.agreements), int(metric.total)) == (agreements, 300)
    assert metric.compute() == shift_consistency(first, second)
    for level in (0.9, 0.95):
        expected = stats.binomtest(agreements, 300).proportion_ci(level, method="wilson")
        assert metric.interval(level) == pytest.approx(tuple(expected))
    restored = pickle.loads(pickle.dumps(copy.deepcopy(metric)))
    assert restored.compute() == metric.compute()
    metric.reset()
    with pytest.raises(InputError, match="update"):
        metric.compute()


def test_two_processes_add_their_counts(pairs: tuple[torch.Tensor, torch.Tensor]) -> None:
    first, second = pairs
    one, other = ShiftConsistency(), ShiftConsistency()
    one.update(first[:100], second[:100])
    other.update(first[100:], second[100:])
    others = cycle([other.agreements, other.total])

    def gather(tensor: torch.Tensor, group: object = None) -> list[torch.Tensor]:
        return [tensor, next(others)]

    one.dist_sync_fn, one.distributed_available_fn = gather, lambda: True
    assert one.compute() == shift_consistency(first, second)
    found = one.interval()
    expected = stats.binomtest(int((first.argmax(1) == second.argmax(1)).sum()), 300).proportion_ci(method="wilson")
    assert found == pytest.approx(tuple(expected))
    assert int(one.total) == 100  # its own again


@pytest.mark.filterwarnings("ignore:The ``compute`` method")
def test_bad_input() -> None:
    with pytest.raises(InputError, match="update"):
        ShiftConsistency().compute()
    with pytest.raises(InputError, match="update"):
        ShiftConsistency().interval()
    good = torch.rand(4, 3)
    for second, message in [
        (torch.rand(5, 3), "same pairs"),
        (torch.rand(4, 2), "same pairs"),
        (torch.rand(4, 3, 1), "N, classes"),
        (torch.tensor([[0.0, float("nan"), 1.0]] * 4), "NaN in row 0"),
        (torch.rand(4), "integer classes"),
        (torch.zeros(4, 3, dtype=torch.int64), "integer classes"),
    ]:
        with pytest.raises(InputError, match=message):
            ShiftConsistency().update(good, second)
        with pytest.raises(InputError, match=message):
            shift_consistency(good, second)
    with pytest.raises(InputError, match="at least one pair"):
        shift_consistency(torch.rand(0, 3), torch.rand(0, 3))
    with pytest.raises(InputTypeError, match="ndarray"):
        shift_consistency(good, good.numpy())
