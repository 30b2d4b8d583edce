"""What the families share: records of one network, counts by image, draws, order."""

from __future__ import annotations

import numpy as np
import torch
from helpers.evaluation_runs import network_of

from dealias.evaluation.store import Record
from dealias.evaluation.tasks.base import Answers, by_image, generator, in_order, logits_of


def _record(task: str, start: int, nan: list[int]) -> Record:
    positions = [10 + start + place for place in range(len(nan))]
    return Record(task, 0, start, positions, positions, [], 0, {"plain": {"nan": nan}, "other": {"nan": [1]}})


def test_broken_images_are_those_of_the_task_with_most() -> None:
    records = [_record("a", 0, [1, 0]), _record("a", 2, [0, 1]), _record("b", 0, [1, 0])]
    assert Answers(records, "plain").broken() == 2
    assert Answers(records, "missing").broken() == 0


def test_counts_by_image() -> None:
    parts = [([4, 9], {"top1": [1, 0]}), ([2], {"top1": [1]})]
    assert by_image(parts, "top1") == {4: 1, 9: 0, 2: 1}


def test_draws_depend_on_seed_name_level_and_image() -> None:
    keys = [(0, "fog", 1, 0), (1, "fog", 1, 0), (0, "snow", 1, 0), (0, "fog", 2, 0), (0, "fog", 1, 1)]
    assert len({generator(*key).random() for key in keys}) == 5
    assert generator(*keys[0]).random() == np.random.default_rng((0, 0, 1, *b"fog")).random()


def test_known_names_come_first() -> None:
    assert in_order(("snow", "fog"), ["zigzag", "fog", "blur", "snow"]) == ["snow", "fog", "blur", "zigzag"]


def test_logits_keep_images_and_views_apart() -> None:
    network = network_of()
    views = torch.randint(0, 256, (2, 3, 3, 32, 32), dtype=torch.uint8)
    found = logits_of(views, network)
    assert found.shape == (2, 3, 10)
    assert torch.allclose(found[1, 2], network.predict(views[1, 2][None])[0], atol=1e-5)
