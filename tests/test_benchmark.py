import csv
import io
import weakref
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from dealias import benchmark
from dealias.benchmark import as_csv, contests, in_turn, measure, median_ratio, race, saved_beyond_input


@pytest.fixture
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(benchmark.SIZES, 9, (2, 3))


def test_every_contest_compares_the_same_operation() -> None:
    x = torch.randn(2, 3, 9, 8)
    for contest in contests():
        torch.testing.assert_close(contest.fused(x), contest.unfused(x))


def test_forms_take_turns(monkeypatch: pytest.MonkeyPatch) -> None:
    now, calls = [0.0], []
    monkeypatch.setattr(benchmark, "clock", lambda: now[0])

    def form(name: str, seconds: float) -> None:
        calls.append(name)
        now[0] += seconds

    times = race({"a": lambda: form("a", 2.0), "b": lambda: form("b", 0.5)}, rounds=3, warmup=1)
    assert calls == ["a", "b"] * 4
    assert times == {"a": [2.0] * 3, "b": [0.5] * 3}


def test_arguments_take_turns_and_only_the_newest_results_stay() -> None:
    seen: list[int] = []
    made: list[weakref.ref[Tensor]] = []

    def run(argument: int) -> Tensor:
        seen.append(argument)
        result = torch.empty(1)
        made.append(weakref.ref(result))
        return result

    step = in_turn(run, [1, 2, 3])
    for _ in range(5):
        step()
    assert seen == [1, 2, 3, 1, 2]
    assert [result() is not None for result in made] == [False, False, False, True, True]


def test_the_median_is_of_ratios_within_a_round() -> None:
    assert median_ratio([1.0, 10.0, 6.0], [1.0, 1.0, 3.0]) == 2.0  # of 1, 10 and 2; the medians' would be 6


def test_what_a_backward_saves() -> None:
    x = torch.randn(2, 3, 10, 10)
    assert saved_beyond_input(lambda x: x * 2, x) == 0  # nothing
    assert saved_beyond_input(lambda x: x * x, x) == 0  # the input itself
    assert saved_beyond_input(torch.exp, x) == 1  # the result
    index = 8 * 25 / (4 * 100)
    assert saved_beyond_input(lambda x: torch.nn.functional.max_pool2d(x, 2), x) == pytest.approx(index)


@pytest.mark.parametrize(("index", "inputs"), [(0, 1), (1, 2), (2, 1)])
def test_rows(small: None, index: int, inputs: int) -> None:
    seen: set[int] = set()

    def fused(x: Tensor) -> Tensor:
        seen.add(x.data_ptr())
        return contests()[index].fused(x)

    contest = replace(contests()[index], fused=fused)

    def rivals(contest: benchmark.Contest, x: Tensor) -> dict[str, benchmark.Op]:
        assert x.shape == (2, 3, 9, 9)
        assert x.is_contiguous(memory_format=torch.channels_last)
        return {"rival": contest.unfused}

    rows = measure(contest, "NHWC", "bfloat16", 9, rounds=1, inputs=inputs, rivals=rivals)
    assert len(seen) == inputs
    assert [row["pass"] for row in rows] == ["forward", "forward + backward"]
    assert all(
        float(str(row[name])) > 0 for row in rows for name in ("ms", "x bound", "unfused / fused", "rival / fused")
    )
    read = list(csv.DictReader(io.StringIO(as_csv(rows))))
    assert [row["rival / fused"] for row in read] == [str(row["rival / fused"]) for row in rows]


def test_traffic() -> None:
    maximum, blur, _ = contests()
    assert maximum.traffic(backward=False) == blur.traffic(backward=False) == 1.25
    assert blur.traffic(backward=True) == 2.5  # reads 1/4, writes 1
    assert maximum.traffic(backward=True) == 3.5  # and reads the input again
