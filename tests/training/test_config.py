"""The content of `config.yaml`, and the runs that may go on from it."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from helpers.training_runs import assert_same_run, run_tiny, tiny_config

import dealias
from dealias.errors import InputError
from dealias.training import Config


def write(path: Path, config: Config, **changes: Any) -> Path:
    """The config's file with other values; ... removes a key."""
    content = {**config.to_dict(), **changes}
    path.write_text(yaml.safe_dump({key: value for key, value in content.items() if value is not ...}))
    return path


def test_the_file_holds_every_setting_and_the_versions() -> None:
    config = tiny_config(decay_epochs=[1, 2], crop_scale=[0.5, 1])
    content = yaml.safe_load(yaml.safe_dump(config.to_dict()))
    assert content.pop("versions") == {"dealias": dealias.__version__, "torch": str(torch.__version__)}
    assert content == {
        **{key: value for key, value in vars(config).items() if key != "settings"},
        **{key: getattr(config.settings, key) for key in type(config.settings).model_fields},
    }


def test_the_same_run_goes_on(tmp_path: Path) -> None:
    config = tiny_config(decay_epochs=[1, 2], crop_scale=[0.5, 1])
    config.check_resumes(write(tmp_path / "config.yaml", config))
    changed = write(tmp_path / "config.yaml", config, save_every=3.0, versions={})
    config.check_resumes(changed)


@pytest.mark.parametrize("key", ["new_head", "limit", "consistency_pairs"])
def test_a_key_that_an_older_version_did_not_write_has_its_default(tmp_path: Path, key: str) -> None:
    config = replace(tiny_config(), limit=None)
    path = write(tmp_path / "config.yaml", config, **{key: ...})
    config.check_resumes(path)
    other = {"new_head": True, "limit": 3, "consistency_pairs": 2}[key]
    changed = (
        replace(tiny_config(consistency_pairs=2), limit=None)
        if key == "consistency_pairs"
        else replace(config, **{key: other})
    )
    default = {"new_head": False, "limit": None, "consistency_pairs": 1}[key]
    with pytest.raises(InputError, match=f"has a run with {key}={default}, not {other}: resume it with its own"):
        changed.check_resumes(path)


def test_a_run_of_an_older_version_is_resumed(tmp_path: Path) -> None:
    for name in ("whole", "older"):
        run_tiny(tmp_path / name)
    path = tmp_path / "older" / "config.yaml"
    path.write_text("".join(line for line in path.read_text().splitlines(True) if not line.startswith("new_head")))
    (tmp_path / "older/checkpoints/state-00000008.pt").unlink()  # go on from the end of the first epoch
    run_tiny(tmp_path / "older", resume=True)
    assert_same_run(tmp_path / "older", tmp_path / "whole")
    assert yaml.safe_load(path.read_text())["new_head"] is False


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"seed": 6}, "has a run with seed=6, not 5"),
        ({"epochs": 3}, "has a run with epochs=3, not 2"),
        ({"epochs": ...}, "has a run with epochs=None, not 2"),
        ({"unheard_of": 1}, "has a run with unheard_of=1, not None"),
    ],
)
def test_another_run_is_refused(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    config = tiny_config()
    with pytest.raises(InputError, match=message):
        config.check_resumes(write(tmp_path / "config.yaml", config, **changes))


@pytest.mark.parametrize("content", [b"epochs: [", b"", b"a text", b"\xff\xfe", None])
def test_a_damaged_file(tmp_path: Path, content: bytes | None) -> None:
    if content is not None:
        (tmp_path / "config.yaml").write_bytes(content)
    with pytest.raises(InputError, match=r"config\.yaml' cannot be read"):
        tiny_config().check_resumes(tmp_path / "config.yaml")
