from collections.abc import Callable
from pathlib import Path

import pytest
import torch


@pytest.mark.parametrize("arguments", [["no-such-command"], ["demo", "--no-such-option"], ["audit"]])
def test_wrong_usage_exits_with_2(run: Callable[..., int], arguments: list[str]):
    assert run(*arguments) == 2


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["audit", "torchvision:resnet51"], "resnet51"),
        (["audit", "resnet50"], "resnet50"),
        (["audit", "dealias:vgg_small", "--filter", "bin44"], "bin44"),
        (["audit", "dealias:vgg_small", "--filter", "1,x"], "1,x"),
        (["audit", "dealias:vgg_small", "--weights", "missing.pth"], "missing.pth"),
    ],
)
def test_bad_arguments_end_in_one_line(
    error_of: Callable[..., str], images: Path, tmp_path: Path, arguments: list[str], named: str
):
    output = tmp_path / "out"
    assert named in error_of(*arguments, "--images", images, "--output", output)
    assert not output.exists() or list(output.iterdir()) == []


def test_a_file_that_is_no_checkpoint_and_one_that_does_not_fit(
    error_of: Callable[..., str], images: Path, tmp_path: Path
):
    text, other = tmp_path / "text.pth", tmp_path / "other.pth"
    text.write_text("hello")
    torch.save({"features.0.weight": torch.zeros(1), "surplus": torch.zeros(1)}, other)
    for path, named in ((text, "text.pth"), (other, "surplus")):
        arguments = ("audit", "dealias:vgg_small", "--weights", path, "--images", images, "--output", tmp_path / "out")
        assert named in error_of(*arguments)


def test_folders_that_cannot_be_read_or_written(error_of: Callable[..., str], images: Path, tmp_path: Path):
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "empty" in error_of("audit", "dealias:vgg_small", "--images", empty, "--output", tmp_path / "out")
    blocked = images / "a" / "0.jpg" / "out"
    assert "cannot be written" in error_of("demo", "--quick", "--output", blocked)
