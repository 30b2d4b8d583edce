import math
import pickle
from itertools import pairwise

import numpy as np
import pytest
import torch

from dealias.errors import InputError, InputTypeError
from dealias.metrics.robustness import (
    T5D,
    CorruptionError,
    FlipRate,
    alexnet_corruption_errors,
    flip_rate,
    mean_normalised,
    sequence_counts,
    top5_distance,
)
from dealias.perturb import CORRUPTIONS

pytestmark = pytest.mark.filterwarnings("ignore:The ``compute`` method of metric")
SETTINGS = [(False, 1), (False, 2), (False, 3), (True, 1), (True, 3)]


def logits_of(sequences: int, frames: int, classes: int, seed: int = 0) -> torch.Tensor:
    """Frames that resemble those before them, so that some pairs agree."""
    walk = torch.randn(sequences, frames, classes, generator=torch.Generator().manual_seed(seed)).cumsum(1)
    return walk.round(decimals=1)  # with ties


def frame_pairs(frames: int, noise: bool, difficulty: int) -> list[tuple[int, int]]:
    if noise:
        return [(0, later) for later in range(1, frames)]
    return [pair for phase in range(difficulty) for pair in pairwise(range(phase, frames, difficulty))]


def five_place_distance(earlier: np.ndarray, later: np.ndarray) -> float:
    """The paper's definition: tau(i, sigma(i)) sums the indicator 1 <= j - 1 <= 5 over the places between."""
    order, new_order = (np.argsort(-logits, kind="stable").tolist() for logits in (earlier, later))
    total = 0
    for place in range(1, min(5, len(order)) + 1):
        new = new_order.index(order[place - 1]) + 1
        total += sum(1 <= j - 1 <= 5 for j in range(min(place, new) + 1, max(place, new) + 1))
    return total


@pytest.mark.parametrize(("noise", "difficulty"), SETTINGS)
def test_sequence_metrics_agree_with_loops(noise: bool, difficulty: int) -> None:
    logits = logits_of(6, 11, 13)
    flips, distances = [], []
    for sequence in logits.numpy():
        pairs = frame_pairs(11, noise, difficulty)
        flips.append(np.mean([sequence[a].argmax() != sequence[b].argmax() for a, b in pairs]))
        distances.append(np.mean([five_place_distance(sequence[a], sequence[b]) for a, b in pairs]))
    assert 0 < np.mean(flips) < 1
    assert flip_rate(logits, noise=noise, difficulty=difficulty).item() == pytest.approx(np.mean(flips), rel=1e-6)
    assert top5_distance(logits, noise=noise, difficulty=difficulty).item() == pytest.approx(
        np.mean(distances), rel=1e-6
    )


def test_top5_distance_of_imagenet_matches_the_published_table() -> None:
    """The authors' form: C = cumsum([0] + [1] * 5 + [0] * 994), the distance the sum of |C[k] - C[sigma_k - 1]|."""
    table = np.cumsum([0] + [1] * 5 + [0] * 994)
    logits = torch.randn(2, 4, 1000, generator=torch.Generator().manual_seed(1))
    expected = []
    for sequence in logits.numpy():
        ranks = [np.argsort(np.argsort(-frame)) + 1 for frame in sequence]
        for earlier, later in pairwise(ranks):
            sigma = later[np.argsort(earlier)]
            expected.append(np.abs(table[:5] - table[sigma - 1][:5]).sum())
    assert top5_distance(logits).item() == pytest.approx(np.mean(expected), rel=1e-6)


@pytest.mark.parametrize("classes", [2, 4])
def test_top5_distance_of_fewer_than_five_classes(classes: int) -> None:
    logits = logits_of(3, 5, classes)
    expected = [
        five_place_distance(sequence[a], sequence[b]) for sequence in logits.numpy() for a, b in pairwise(range(5))
    ]
    assert top5_distance(logits).item() == pytest.approx(np.mean(expected), rel=1e-6)


@pytest.mark.parametrize("metric_type", [FlipRate, T5D])
@pytest.mark.parametrize(("noise", "difficulty"), SETTINGS)
def test_sequence_metrics_do_not_depend_on_batches_or_processes(
    metric_type: type[FlipRate | T5D], noise: bool, difficulty: int
) -> None:
    logits = logits_of(7, 8, 9)
    function = flip_rate if metric_type is FlipRate else top5_distance
    whole, first, second = (metric_type(noise=noise, difficulty=difficulty) for _ in range(3))
    whole.update(logits)
    first.update(logits[:1])
    second.update(logits[1:3])
    second.update(logits[3:])
    first.add_lists(second.as_lists())  # as a reduction over processes joins the states
    assert whole.compute() == first.compute() == function(logits, noise=noise, difficulty=difficulty)
    assert whole.interval() == first.interval()
    assert pickle.loads(pickle.dumps(whole)).compute() == whole.compute()
    whole.reset()
    with pytest.raises(InputError, match="no pairs yet"):
        whole.compute()


@pytest.mark.parametrize(("noise", "difficulty"), SETTINGS)
def test_frames_with_nan_are_flips_of_the_largest_distance(noise: bool, difficulty: int) -> None:
    logits = logits_of(3, 8, 6)
    flips, distances = sequence_counts(logits, noise=noise, difficulty=difficulty)
    assert flips.float().mean() == flip_rate(logits, noise=noise, difficulty=difficulty)
    assert distances.float().mean() == top5_distance(logits, noise=noise, difficulty=difficulty)
    damaged = logits.clone()
    damaged[1, 4, 2] = math.nan
    touched = torch.zeros(3, flips.shape[1], dtype=torch.bool)
    touched[
        1, [pair for pair in range(flips.shape[1]) if 4 in ((0, pair + 1) if noise else (pair, pair + difficulty))]
    ] = True
    found_flips, found_distances = sequence_counts(damaged, noise=noise, difficulty=difficulty)
    assert torch.equal(found_flips, flips | touched)
    assert torch.equal(found_distances, distances.masked_fill(touched, 15))


def test_flip_rate_takes_classes() -> None:
    logits = logits_of(4, 6, 5)
    assert flip_rate(logits.argmax(-1)) == flip_rate(logits)


@pytest.mark.parametrize("rate", [0.03, 0.4])
def test_flip_rate_interval_covers(rate: float) -> None:
    random = np.random.default_rng(0)
    covered = 0
    for _ in range(300):
        # flips are alike within a sequence: each has its own rate, with mean `rate`
        rates = random.beta(2 * rate, 2 * (1 - rate), size=(60, 1))
        flips = random.random((60, 20)) < rates
        metric = FlipRate()
        metric.update(torch.from_numpy(np.concatenate([np.zeros((60, 1), int), flips.cumsum(1) % 2], 1)))
        low, high = metric.interval()
        covered += low <= rate <= high
    assert 0.91 <= covered / 300 <= 0.99


def test_t5d_interval_covers() -> None:
    random = np.random.default_rng(0)
    samples = [torch.from_numpy(random.normal(size=(30, 5, 6)).cumsum(1)) for _ in range(200)]
    truth = top5_distance(torch.cat(samples)).item()
    covered = 0
    for logits in samples:
        metric = T5D()
        metric.update(logits)
        low, high = metric.interval()
        covered += low <= truth <= high
    assert 0.9 <= covered / 200 <= 0.99


def test_intervals_of_little_data() -> None:
    flip, distance = FlipRate(), T5D()
    flip.update(torch.zeros(1, 3, 2))
    distance.update(torch.zeros(1, 3, 2))
    assert flip.interval()[0] == 0
    assert 0.5 < flip.interval()[1] < 1
    assert distance.interval() == (0, 15)
    flip.update(torch.zeros(49, 3, 2))
    assert 0 < flip.interval()[1] < 0.1
    with pytest.raises(InputError, match="level"):
        flip.interval(1.0)


@pytest.mark.parametrize(
    ("call", "error", "words"),
    [
        (lambda: flip_rate(torch.zeros(3, 4)), InputError, "sequences, frames"),
        (lambda: flip_rate(torch.zeros(0, 4, 2)), InputError, "none of them 0"),
        (lambda: flip_rate(torch.zeros(2, 2, 2), difficulty=2), InputError, "2 frames"),
        (lambda: flip_rate(torch.full((2, 2, 2), math.nan)), InputError, "NaN"),
        (lambda: flip_rate(np.zeros((2, 2, 2))), InputTypeError, "torch.Tensor"),
        (lambda: top5_distance(torch.zeros(2, 2, 2, dtype=torch.long)), InputTypeError, "float"),
        (lambda: top5_distance(torch.full((2, 2, 2), math.nan)), InputError, "NaN"),
        (lambda: FlipRate(difficulty=4), InputError, "difficulty=4"),
        (lambda: mean_normalised({"snow": 0.1}, {}), InputError, "snow"),
        (lambda: mean_normalised({}, {}), InputError, "empty"),
        (lambda: CorruptionError().update("rain", 1, torch.zeros(1, 2), torch.zeros(1).long()), InputError, "rain"),
        (lambda: CorruptionError().update("fog", 6, torch.zeros(1, 2), torch.zeros(1).long()), InputError, "6"),
        (lambda: CorruptionError().update("fog", 1, torch.zeros(1, 2), torch.zeros(2).long()), InputError, "target"),
        (lambda: CorruptionError().interval("fog", 1), InputError, "no images"),
    ],
)
def test_bad_input(call, error: type[Exception], words: str) -> None:
    with pytest.raises(error, match=words):
        call()


def test_all_pairs_of_sequences_of_different_length_count_the_same() -> None:
    metric = FlipRate()
    metric.update(torch.tensor([[0, 1, 0]]))
    metric.update(torch.tensor([[0, 0, 0, 0]]))
    assert metric.compute().item() == pytest.approx(2 / 5)
    assert metric.counts() == {"sequences": 2, "pairs": 5}


def corruption_errors(seed: int = 0) -> tuple[CorruptionError, dict[str, np.ndarray]]:
    """A metric over random predictions for all 19 x 5, and the errors (5,) by corruption counted in NumPy."""
    random = np.random.default_rng(seed)
    metric, expected = CorruptionError(), {}
    for name in metric.corruptions:
        expected[name] = np.zeros(5)
        for severity in range(1, 6):
            logits, target = random.normal(size=(20, 4)), random.integers(0, 4, 20)
            metric.update(name, severity, torch.from_numpy(logits[:7]), torch.from_numpy(target[:7]))
            metric.update(name, severity, torch.from_numpy(logits[7:]), torch.from_numpy(target[7:]))
            expected[name][severity - 1] = np.mean(logits.argmax(1) != target)
    return metric, expected


def test_corruption_error_agrees_with_numpy() -> None:
    metric, expected = corruption_errors()
    result = metric.compute()
    alexnet = alexnet_corruption_errors()
    assert set(result) == {*expected, "mean", "mce"}
    for name, errors in expected.items():
        assert result[name].item() == pytest.approx(errors.mean(), rel=1e-6)
        assert metric.table()[name] == pytest.approx(errors, rel=1e-6)
    assert result["mean"].item() == pytest.approx(np.mean([expected[name].mean() for name in alexnet]), rel=1e-6)
    mce = np.mean([expected[name].mean() / alexnet[name] for name in alexnet])
    assert result["mce"].item() == pytest.approx(mce, rel=1e-6)
    low, high = metric.interval("fog", 2)
    assert low < expected["fog"][1] < high


def test_corruption_error_of_a_part() -> None:
    metric = CorruptionError()
    assert metric.compute()["mean"].isnan()
    target = torch.tensor([0, 1, 2, 3])
    metric.update("fog", 1, torch.tensor([0, 1, 2, 0]), target)
    metric.update("fog", 5, torch.tensor([1, 0, 2, 0]), target)
    metric.update("saturate", 1, torch.tensor([1, 0, 0, 0]), target)
    result = metric.compute()
    assert {name: value.item() for name, value in result.items() if name != "mce"} == {
        "fog": 0.5,
        "saturate": 1.0,
        "mean": 0.5,
    }
    assert result["mce"].isnan()
    assert metric.table()["fog"] == pytest.approx([0.25, math.nan, math.nan, math.nan, 0.75], nan_ok=True)


def test_alexnet_has_mce_one() -> None:
    """A network with AlexNet's errors, to the nearest of 1,000 images."""
    metric = CorruptionError()
    for name, error in alexnet_corruption_errors().items():
        wrong = torch.arange(1000) < round(1000 * error)
        for severity in range(1, 6):
            metric.update(name, severity, wrong.long(), torch.zeros(1000).long())
    assert metric.compute()["mce"].item() == pytest.approx(1, abs=1e-3)


def test_alexnet_errors_are_of_the_fifteen_corruptions() -> None:
    assert tuple(alexnet_corruption_errors()) == CORRUPTIONS
