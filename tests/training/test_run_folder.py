"""The files of a run: what is written, what is refused, and what happens to damaged states and full disks."""

from __future__ import annotations

import io
import os
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
import yaml
from helpers.training_runs import (
    assert_equal,
    assert_same_run,
    records,
    run_tiny,
    stateful,
    tiny_config,
)

from dealias.errors import InputError
from dealias.training.run_folder import problem_of_state, state_content

PLAIN = "helpers.training_runs:plain_network"


def test_what_a_run_writes(tmp_path: Path) -> None:
    found = run_tiny(tmp_path, config=tiny_config(PLAIN, limit=50))
    names = {str(path.relative_to(tmp_path)) for path in tmp_path.rglob("*") if path.is_file()}
    board = {name for name in names if name.startswith("tensorboard/events")}
    states = {"checkpoints/state-00000001.pt", "checkpoints/state-00000002.pt"}
    weights = {"checkpoints/best.safetensors", "checkpoints/last.safetensors"}
    assert names - board == {".dealias.json", "config.yaml", "log.jsonl", "timing.jsonl"} | states | weights
    config = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert (config["model"], config["seed"], config["epochs"], config["data"]) == (PLAIN, 5, 2, "digits")
    epochs = [record for record in records(tmp_path) if "accuracy" in record]
    assert [record["epoch"] for record in epochs] == [0, 1]
    assert found["accuracy"] == epochs[-1]["accuracy"]
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    scalars = event_accumulator.EventAccumulator(str(tmp_path / "tensorboard"))
    scalars.Reload()
    assert {"loss", "learning_rate", "accuracy", "circular_consistency", "images_per_second"} <= {
        *scalars.Tags()["scalars"]
    }
    assert [event.value for event in scalars.Scalars("accuracy")] == pytest.approx([e["accuracy"] for e in epochs])


def test_states_are_few_safe_to_load_and_complete(unbroken: Path) -> None:
    names = sorted(path.name for path in (unbroken / "checkpoints").iterdir())
    assert names == ["best.safetensors", "last.safetensors", "state-00000007.pt", "state-00000008.pt"]
    state = torch.load(unbroken / "checkpoints" / "state-00000007.pt", weights_only=True)
    assert state["data"] == {"epoch": 1, "batch": 3}
    assert state["random"] == {"seed": 5, "step": 7}
    assert state["schedule"]["last_epoch"] == 7
    assert state["optimizer"]["state"]
    assert (state["average"]["module.5.weight"] != state["model"]["5.weight"]).any()


def flipped(content: bytes, place: int) -> bytes:
    """With the highest bit of that byte flipped."""
    changed = bytearray(content)
    changed[place] ^= 0x80
    return bytes(changed)


@pytest.mark.parametrize(
    "damage",
    [
        lambda content: content[: len(content) // 2],
        lambda content: b"",
        lambda content: flipped(content, content.rindex(b"data.pkl")),  # a name in the archive
        lambda content: flipped(content, content.rindex(b"PK\x06\x06") + 16),  # PyTorch alone looks at it
    ],
    ids=["half", "empty", "name", "trailer"],
)
def test_a_damaged_state_gives_way_to_the_one_before(
    tmp_path: Path, unbroken: Path, damage: Callable[[bytes], bytes]
) -> None:
    newest = unbroken / "checkpoints" / "state-00000008.pt"
    log, whole = (unbroken / "log.jsonl").read_bytes(), newest.read_bytes()
    newest.write_bytes(damage(whole))
    with pytest.warns(UserWarning, match=r"state-00000008.pt is damaged .* going on from state-00000007.pt"):
        run_tiny(unbroken, resume=True, config=stateful())
    assert (unbroken / "log.jsonl").read_bytes() == log
    assert_equal(torch.load(newest, weights_only=True), torch.load(io.BytesIO(whole), weights_only=True))


def test_one_flipped_bit_is_noticed(unbroken: Path) -> None:
    newest = unbroken / "checkpoints" / "state-00000008.pt"
    content = newest.read_bytes()
    newest.write_bytes(flipped(content, content.index(b"PK\x03\x04", len(content) // 2) - 100))  # inside a tensor
    with pytest.warns(UserWarning, match="checksum"):
        run_tiny(unbroken, resume=True, config=stateful())


def test_all_states_damaged(unbroken: Path) -> None:
    for path in (unbroken / "checkpoints").glob("state-*.pt"):
        path.write_bytes(b"nothing")
    with pytest.warns(UserWarning, match="damaged"), pytest.raises(InputError, match="so are the others"):
        run_tiny(unbroken, resume=True, config=stateful())


def test_the_problem_of_a_state() -> None:
    content = state_content({"step": 3, "model": {"weight": torch.arange(1000)}})
    assert problem_of_state(content) is None
    assert problem_of_state(content[:-9]) is not None
    inside = content.index(torch.arange(1000).numpy().tobytes()) + 5000
    assert str(problem_of_state(flipped(content, inside))).startswith("checksum of ")


def test_a_full_disk_stops_with_the_last_state_whole(
    tmp_path: Path, unbroken: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    broken, fsync, calls = tmp_path / "broken", os.fsync, []

    def full(handle: int) -> None:
        calls.append(handle)
        if len(calls) > 14:
            raise OSError(28, "No space left on device")
        fsync(handle)

    with monkeypatch.context() as patched:
        patched.setattr(os, "fsync", full)
        with pytest.raises(OSError, match=r"step \d cannot be saved .*No space left on device.*--resume"):
            run_tiny(broken, config=stateful())
    assert 1 <= len(list(broken.glob("checkpoints/state-*.pt"))) <= 2
    assert [path.name for path in broken.rglob(".*")] == [".dealias.json"]
    run_tiny(broken, resume=True, config=stateful())
    assert_same_run(broken, unbroken)


def test_a_run_is_not_overwritten_nor_mixed_with_another(tmp_path: Path) -> None:
    config = tiny_config(epochs=1, limit=60)
    run_tiny(tmp_path / "run", config=config, resume=True)  # an empty folder: a fresh start
    log = (tmp_path / "run" / "log.jsonl").read_bytes()
    with pytest.raises(InputError, match="has a run: pass --resume"):
        run_tiny(tmp_path / "run", config=config)
    with pytest.raises(InputError, match=r"has a run with seed=5, not 6: resume it with its own settings"):
        run_tiny(tmp_path / "run", config=tiny_config(epochs=1, limit=60, seed=6), resume=True)
    found = run_tiny(tmp_path / "run", config=config, resume=True)  # done already
    assert found["accuracy"] == records(tmp_path / "run")[-1]["accuracy"]
    assert (tmp_path / "run" / "log.jsonl").read_bytes() == log
