import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from helpers.repairs import write_images
from safetensors.torch import load_file, save_file

from dealias.models import create_model
from dealias.repair import from_folder
from dealias.repair.distillation import reestimate_statistics


@pytest.fixture
def baseline(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    path = tmp_path / "baseline.safetensors"
    network = create_model("dealias:vgg_small")
    reestimate_statistics(network, [torch.rand(64, 1, 32, 32)])  # else it predicts one class only
    save_file(network.state_dict(), path)
    return path


def test_class_folders_add_the_accuracy(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path, baseline: Path
):
    for digit in range(10):
        write_images(tmp_path / "images" / str(digit), 2)
    output = tmp_path / "out"
    arguments = ("repair", "dealias:vgg_small", "--weights", baseline, "--images", tmp_path / "images")
    arguments += ("--epochs", 1, "--output", output)
    assert run(*arguments, "--min-agreement", 0, "--min-consistency", 0, "--held-out", 0.5) == 0
    shown = capsys.readouterr().out.split()
    assert shown[-2:] == [str(output / "model.safetensors"), str(output / "results.json")]
    results = json.loads((output / "results.json").read_text())
    # the same two images in each of the ten folders: copies stay together
    assert results["images"] == {"trained_on": 10, "held_out": 10}
    assert {"agreement", "consistency", "accuracy"} <= results["repaired"].keys()
    assert load_file(output / "model.safetensors").keys() == create_model("dealias:vgg_small").state_dict().keys()


def test_a_plain_folder_and_a_failed_repair(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path, baseline: Path
):
    images = tmp_path / "images"
    write_images(images, 20)
    (images / "broken.png").write_bytes(b"no image")
    output = tmp_path / "out"
    arguments = ("repair", "dealias:vgg_small", "--weights", baseline, "--images", images, "--output", output)
    code = run(*arguments, "--epochs", 1, "--learning-rate", 1e-9, "--min-agreement", 1, "--keep-norms")
    printed = capsys.readouterr()
    assert code == 1
    failure = printed.err.splitlines()[-1]
    assert failure.startswith("error: the repair failed: agreement ")
    assert failure.endswith("No weights were written; --resume goes on")
    assert "1 files cannot be read as images" in printed.out
    assert [path.name for path in sorted(output.iterdir())] == [".dealias.json", "results.json", "state.pt"]
    results = json.loads((output / "results.json").read_text())
    assert results["images"] == {"trained_on": 16, "held_out": 4}
    assert "reestimated" not in results  # the norms are kept
    assert "accuracy" not in results["repaired"]


def test_nothing_is_read_before_the_arguments_are_checked(
    error_of: Callable[..., str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path, baseline: Path
):
    monkeypatch.setattr(from_folder, "read_images", lambda *args, **more: pytest.fail("images were read"))
    for option, value, named in (
        ("--output", baseline, "cannot be written"),
        ("--min-agreement", 2, "min_agreement=2.0"),
        ("--held-out", 1, "held_out=1.0"),
        ("--learning-rate", "nan", "learning_rate=nan"),
    ):
        arguments = ("--weights", baseline, "--images", "images", "--output", tmp_path / "out", option, value)
        assert named in error_of("repair", "dealias:vgg_small", *arguments)


def test_images_of_the_size_that_the_network_was_trained_at(
    run: Callable[..., int], error_of: Callable[..., str], tmp_path: Path, baseline: Path
):
    output, images = tmp_path / "out", tmp_path / "images"
    write_images(images, 64)
    arguments = ("repair", "dealias:vgg_small", "--weights", baseline, "--images", images, "--output", output)
    arguments += ("--epochs", 1, "--min-agreement", 0, "--min-consistency", 0, "--held-out", 0.5)
    assert run(*arguments, "--image-size", 56, "--crop-size", 48) == 0
    used = json.loads((output / "results.json").read_text())["settings"]["preprocessing"]
    assert (used["image_size"], used["crop_size"]) == (56, 48)
    assert "preprocessing" in error_of(*arguments, "--crop-size", 64, "--resume")
    assert "crop_size=0" in error_of(*arguments, "--crop-size", 0, "--output", tmp_path / "other")


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--images", "missing"], "images='missing'"),
        (["--images", "images", "--min-agreement", "2"], "min_agreement=2.0"),
        (["--images", "images", "--held-out", "0"], "held_out=0.0"),
        (["--images", "images", "--filter", "bin44"], "bin44"),
        (["--images", "images", "--part", "pnet"], "part='pnet' must be PATH=SIDE"),
        (["--images", "images", "--part", "pnet=8"], "the network has no module 'pnet'"),
        (["--images", "film.mp4", "--pan", "2"], "pan=2 must be 1 for a video"),
    ],
)
def test_bad_arguments_end_in_one_line(
    error_of: Callable[..., str],
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    baseline: Path,
    arguments: list[str],
    named: str,
):
    write_images(tmp_path / "images", 4)
    monkeypatch.chdir(tmp_path)
    assert named in error_of("repair", "dealias:vgg_small", "--weights", baseline, *arguments, "--output", "out")
