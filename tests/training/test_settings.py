"""Recipes by name, with variants and overrides."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

from dealias.errors import InputError
from dealias.models import parse_model
from dealias.training.settings import Settings, load_recipe, parse_overrides, recipe_data, recipe_names, recipe_text


@pytest.mark.parametrize(
    ("model", "rate"),
    [
        ("torchvision:resnet50", 0.1),
        ("torchvision:alexnet", 0.01),
        ("torchvision:vgg16", 0.01),
        ("torchvision:vgg16_bn", 0.05),
        ("timm:vgg19_bn", 0.05),
        ("torchvision:mobilenet_v2", 0.05),
        ("timm:mobilenetv2_100", 0.05),
    ],
)
def test_the_papers_recipe_by_architecture(model: str, rate: float) -> None:
    found, tuned = load_recipe("zhang2019-imagenet", model=model), load_recipe("zhang2019-finetune", model=model)
    assert (found.learning_rate, found.momentum, found.batch_size, found.optimizer) == (rate, 0.9, 256, "momentum")
    assert tuned.learning_rate == pytest.approx(rate / 10)
    assert tuned.epochs == 60
    if "mobilenet" in model:
        assert (found.epochs, found.schedule, found.weight_decay) == (150, "cosine", 4e-5)
    else:
        assert (found.epochs, found.schedule, found.decay_epochs, found.weight_decay) == (90, "step", 30, 1e-4)


@pytest.mark.parametrize("name", recipe_names())
def test_every_recipe_loads_and_says_what_it_is(name: str) -> None:
    assert load_recipe(name, model="dealias:vgg_small").epochs > 0
    assert recipe_text(name).startswith("# ")
    assert recipe_data(name) == ("digits" if name == "digits" else None)


def test_overrides_count_and_a_given_learning_rate_is_not_scaled() -> None:
    assert load_recipe("digits", scale_learning_rate=0.1).learning_rate == pytest.approx(0.01)
    given = load_recipe("digits", overrides={"learning_rate": 0.3, "filter": 5}, scale_learning_rate=0.1)
    assert (given.learning_rate, given.filter) == (0.3, "5")
    assert parse_overrides(["learning_rate=1e-3", "decay_epochs=[3, 4]"]) == {
        "learning_rate": 1e-3,
        "decay_epochs": [3, 4],
    }


def test_a_recipes_own_factor_scales_its_learning_rate(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("extends: digits\nlearning_rate: 1e-1\nvariants:\n  resnet*: {scale_learning_rate: 5e-1}\n")
    assert load_recipe(str(path), model="timm:resnet18", scale_learning_rate=0.1).learning_rate == pytest.approx(0.05)
    assert load_recipe(str(path), model="timm:vgg11", scale_learning_rate=0.1).learning_rate == pytest.approx(0.01)


def test_settings_from_python() -> None:
    made = Settings(epochs=3, batch_size=8, learning_rate=1, decay_epochs=(1, 2), filter=5)
    assert (made.learning_rate, made.decay_epochs, made.filter) == (1.0, [1, 2], "5")
    for values, message in (
        ({"epochs": 0, "batch_size": 8, "learning_rate": 1}, "epochs=0: it must be greater than 0"),
        ({"epochs": 3, "batch_size": 8, "learning_rate": 1, "flipp": 0}, "unknown key 'flipp': did you mean flip?"),
        ({"epochs": 3, "zzz": 0}, "unknown key 'zzz': use one of epochs, batch_size"),
        ({"epochs": 3}, "Settings lacks batch_size, learning_rate"),
    ):
        with pytest.raises(InputError, match=re.escape(message)):
            Settings(**values)


def test_without_pydantic_the_error_names_the_extra() -> None:
    code = "import sys; sys.modules['pydantic'] = None; import dealias.training"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert "MissingExtraError: pydantic is not installed: pip install 'dealias[metrics]'" in done.stderr


def test_a_file_of_ones_own(tmp_path: Path) -> None:
    path = tmp_path / "mine.yaml"
    path.write_text("extends: digits\nepochs: 3\nvariants:\n  resnet*: {learning_rate: 0.2}\n")
    assert load_recipe(str(path), model="timm:resnet18").learning_rate == 0.2
    assert load_recipe(str(path), model="timm:vgg11").epochs == 3
    assert recipe_data(str(path)) == "digits"


@pytest.mark.parametrize(
    ("pairs", "message"),
    [
        (["learning_rte=1"], "unknown key 'learning_rte': did you mean learning_rate"),
        (["epochs"], "has no value: write KEY=VALUE"),
        (["epochs=many"], "set has epochs='many': it must be a valid integer"),
        (["epochs='3'"], "set has epochs='3': it must be a valid integer"),
        (["epochs=true"], "set has epochs=True: it must be a valid integer"),
        (["flip=true"], "set has flip=True: it must be a valid number"),
        (["compile=1"], "set has compile=1: it must be a valid boolean"),
        (["optimizer=3"], "set has optimizer=3: it must be a valid string"),
        (["schedule=linear"], "schedule='linear': it must be 'step', 'cosine', 'one-cycle' or 'constant'"),
        (["epochs=[1"], "YAML cannot read"),
        (["flip=1.5"], "flip=1.5: it must be less than or equal to 1"),
        (["epochs=0"], "epochs=0: it must be greater than 0"),
        (["in_chans=0"], "in_chans=0: it must be greater than 0"),
        (["learning_rate=.nan"], "learning_rate=nan: it must be a finite number"),
        (["learning_rate=0"], "learning_rate=0: it must be greater than 0"),
        (["weight_decay=.inf"], "weight_decay=inf: it must be a finite number"),
        (["decay_epochs=x"], "decay_epochs='x': it must be a valid integer or a valid list"),
        (["decay_epochs=[]"], "decay_epochs=[]: it must be a valid integer or it must have at least 1 item"),
        (["decay_epochs=[3, 0]"], "decay_epochs=[3, 0]: it must be greater than 0"),
        (["crop_scale=[]"], "smallest and the largest"),
        (["crop_scale=[0.5]"], "smallest and the largest"),
        (["crop_scale=[0.5, 0.2]"], "crop_scale=[0.5, 0.2]: it must be the smallest and the largest"),
        (["warmup_epochs=1"], "warmup_epochs=1.0 does not go with schedule='one-cycle'"),
    ],
)
def test_bad_settings_are_one_clear_error(pairs: list[str], message: str) -> None:
    with pytest.raises(InputError, match=re.escape(message)):
        load_recipe("digits", overrides=parse_overrides(pairs))


@pytest.mark.parametrize("pair", ["weights=a.pth", "antialias=3", "recipe=zhang2019", "label=mine", "new_head=true"])
def test_what_has_an_option_does_not_stand_behind_the_models_name(pair: str) -> None:
    with pytest.raises(InputError, match=f"vgg_small,{pair}': write NAME,KEY=VALUE,... with num_classes, in_chans"):
        parse_model(f"dealias:vgg_small,{pair}")


def test_bad_recipes(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="recipe='digit' is unknown: use cifar-vgg, digits"):
        load_recipe("digit")
    (tmp_path / "a.yaml").write_text("epochs: 3\n")
    with pytest.raises(InputError, match="lacks batch_size, learning_rate"):
        load_recipe(str(tmp_path / "a.yaml"))
    (tmp_path / "b.yaml").write_text("epochs: [")
    with pytest.raises(InputError, match="is not valid YAML"):
        load_recipe(str(tmp_path / "b.yaml"))
    (tmp_path / "c.yaml").write_bytes(b"\xff\xfe")
    for name in ("c.yaml", "missing.yaml"):
        with pytest.raises(InputError, match=f"{name}' cannot be read"):
            load_recipe(str(tmp_path / name))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("extends: own.yaml", "extends itself"),
        ("extends: 5", "extends=5: it must be a valid string"),
        ("extends: digits\nvariants: 3", "variants=3: it must be a valid dictionary"),
        ("extends: digits\nvariants: {'*': 3}", "variants={'*': 3}: it must be a valid dictionary"),
        ("extends: digits\nscale_learning_rate: half", "scale_learning_rate='half': it must be a valid number"),
        ("extends: digits\nepochs: many", "epochs='many': it must be a valid integer"),
        ("extends: digits\n5: 3", "the unknown key '5': use one of epochs, batch_size"),
        ("extends: digits\nepoch: 3", "the unknown key 'epoch': did you mean epochs?"),
        ("extends: digits\nvariants: {'*': {epochs: 0}}", "epochs=0: it must be greater than 0"),
        ("extends: digits\ndata: 5", "data=5: it must be a valid string"),
    ],
)
def test_recipes_of_the_wrong_form(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, text: str, message: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("own.yaml").write_text(text)
    with pytest.raises(InputError, match=f"recipe='own.yaml' (has )?{re.escape(message)}"):
        load_recipe("own.yaml", model="dealias:vgg_small")
