"""Top-1 classes and checks of logits, against NumPy."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from dealias.errors import InputError, InputTypeError
from dealias.metrics.predictions import check_logits, checked_classes, correct_probabilities, top1


def test_top1_is_numpys_argmax_and_nan_is_no_prediction() -> None:
    logits = np.random.default_rng(0).normal(size=(3, 5, 7))
    assert top1(torch.tensor(logits)).tolist() == logits.argmax(-1).tolist()
    logits[1, 2, 6] = np.nan
    logits[0, 0, 3] = np.inf
    found = top1(torch.tensor(logits))
    assert found[1, 2] == -1
    assert found[0, 0] == 3
    assert (found == -1).sum() == 1


def test_checked_classes_names_what_is_wrong() -> None:
    assert checked_classes("x", torch.tensor([4, 1])).tolist() == [4, 1]
    with pytest.raises(InputError, match="x has NaN in row 1"):
        checked_classes("x", torch.tensor([[0.0, 1.0], [torch.nan, 1.0]]))
    with pytest.raises(InputTypeError, match="list"):
        checked_classes("x", [[0.0]])
    with pytest.raises(InputError, match="shape"):
        checked_classes("x", torch.rand(2, 2, 2))
    with pytest.raises(InputTypeError, match="int64"):
        checked_classes("x", torch.ones(2, 2, dtype=torch.int64))


def test_logits_have_two_dimensions() -> None:
    logits = torch.rand(2, 3)
    assert check_logits(logits) is logits
    for output in (torch.rand(3), (logits,), None):
        with pytest.raises(InputError, match="the model's output is"):
            check_logits(output)


def test_probabilities_of_the_right_class_are_softmax() -> None:
    logits = np.random.default_rng(0).normal(size=(2, 4, 3))
    powers = np.exp(logits)
    expected = (powers / powers.sum(-1, keepdims=True))[[0, 1], :, [2, 0]]
    found = correct_probabilities(torch.tensor(logits), torch.tensor([2, 0]))
    np.testing.assert_allclose(found.numpy(), expected, rtol=1e-5)
    with pytest.raises(InputError, match="targets from 0 to 3"):
        correct_probabilities(torch.tensor(logits), torch.tensor([0, 3]))
