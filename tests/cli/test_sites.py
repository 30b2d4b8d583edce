import json
from collections.abc import Callable
from pathlib import Path

import pytest


def test_sites_prints_what_would_be_done(run: Callable[..., int], capsys: pytest.CaptureFixture[str]):
    assert run("sites", "torchvision:resnet18", "--input-size", "64") == 0
    shown = capsys.readouterr().out
    assert "7 of 8 downsampling sites" in shown
    assert "left alone: the stem" in " ".join(shown.split())
    assert run("sites", "torchvision:resnet18", "--stem", "--input-size", "64,96", "--json") == 0
    listed = json.loads(capsys.readouterr().out)
    assert [site["status"] for site in listed] == ["placed"] * 8
    assert listed[0]["input_size"] == [64, 96]
    assert run("sites", "torchvision:resnet18,num_classes=5,in_chans=2", "--input-size", "64", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)) == 8


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["dealias:vgg_small", "--input-size", "a"], "input-size='a'"),
        (["dealias:vgg_small", "--input-size", "0"], "input-size='0'"),
        (["dealias:vgg_small", "--input-size", "1,2,3,4"], "input-size='1,2,3,4'"),
        (["dealias:vgg_small", "--input-size", "3,32,32"], "example_input="),
        (["dealias:vgg_small", "--recipe", "best"], "recipe='best'"),
    ],
)
def test_bad_arguments_end_in_one_line(error_of: Callable[..., str], arguments: list[str], named: str):
    assert named in error_of("sites", *arguments)


def test_an_own_factory_with_its_input_size(
    run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    (tmp_path / "own_network.py").write_text(
        "from torch import nn\ndef build():\n    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.MaxPool2d(2))\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    assert run("sites", "own_network:build", "--input-size", "1,20,30", "--json") == 0
    (site,) = json.loads(capsys.readouterr().out)
    assert site["output_size"] == [9, 14]
