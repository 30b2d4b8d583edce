"""What is planned for networks of different kinds, and what is refused."""

from __future__ import annotations

from pathlib import Path

import pytest
from helpers.evaluation_runs import QUICK, network_of

from dealias.data import open_source
from dealias.errors import InputError
from dealias.evaluation import evaluate
from dealias.evaluation.plan import plan_evaluation
from dealias.evaluation.tasks.base import Request


def test_classes_that_do_not_match(pictures: Path, tmp_path: Path) -> None:
    five = "dealias:vgg_small,in_chans=3,num_classes=5"
    with pytest.raises(InputError, match=r"accuracy.*the images have 10 classes and vgg_small has 5"):
        evaluate([five], pictures, tmp_path / "run", **{**QUICK, "metrics": ("accuracy",)})
    with pytest.warns(UserWarning, match="Not measured, accuracy"):
        results = evaluate([five], pictures, tmp_path / "run", **{**QUICK, "metrics": ("accuracy", "consistency")})
    assert set(results["metrics"]["vgg_small"]) == {"crop_consistency", "crop_unanimity"}
    assert "Not measured, accuracy" in results["notes"][0]


def test_units_cover_every_image_of_every_task_once(pictures: Path) -> None:
    networks = [network_of(), network_of("dealias:vgg_small,in_chans=3", image_size=32, crop_size=32)]
    request = Request(open_source(pictures, limit=17), ["accuracy", "equivariance", "imagenet-c"])
    plan = plan_evaluation(request, networks)
    assert len(plan.groups) == 2
    seen: dict[tuple[int, str], list[int]] = {}
    for unit in plan.units:
        assert unit.stop - unit.start <= unit.task.images_per_unit
        seen.setdefault((unit.group, unit.task.name), []).extend(range(unit.start, unit.stop))
        assert any(unit.task is task for task in plan.tasks[unit.group])
    assert len(seen) == 2 * (1 + 1 + 15)
    for (_, name), numbers in seen.items():
        assert numbers == list(range(4 if name == "equivariance" else 17)), name


def test_windows_are_left_out_where_images_are_seen_whole(pictures: Path) -> None:
    whole, source = network_of("dealias:vgg_small,in_chans=3", image_size=32, crop_size=32), open_source(pictures)
    with pytest.warns(UserWarning, match="see images whole: diagonal, grid"):
        plan = plan_evaluation(Request(source, ["circular", "diagonal", "grid"]), [whole])
    assert plan.notes == ["Not measured where networks see images whole: diagonal, grid."]
    with pytest.raises(InputError, match="metrics='diagonal,grid' cannot be measured: the network sees images whole"):
        plan_evaluation(Request(source, ["grid", "diagonal"]), [whole])


def test_difficulty_is_checked(pictures: Path) -> None:
    with pytest.raises(InputError, match="difficulty=4"):
        Request(open_source(pictures), ["accuracy"], difficulty=4)
