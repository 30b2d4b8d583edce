import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from dealias import antialias
from dealias.models import create_model


def test_sites_prints_what_would_be_done(run: Callable[..., int], capsys: pytest.CaptureFixture[str]):
    assert run("sites", "torchvision:resnet18", "--input-size", "64") == 0
    shown = capsys.readouterr().out
    assert "7 of 8 downsampling sites" in shown
    assert "left alone: the stem" in " ".join(shown.split())
    assert run("sites", "torchvision:resnet18", "--stem", "--input-size", "64,96", "--json") == 0
    found = json.loads(capsys.readouterr().out)
    assert [site["status"] for site in found] == ["placed"] * 8
    assert found[0]["input_size"] == [64, 96]
    assert run("sites", "torchvision:resnet18,num_classes=5,in_chans=2", "--input-size", "64", "--json") == 0
    assert len(json.loads(capsys.readouterr().out)) == 8


def test_convert_writes_a_checkpoint_and_a_report(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], tmp_path: Path
):
    baseline = create_model("dealias:vgg_small")
    save_file(baseline.state_dict(), tmp_path / "in.safetensors")
    output = tmp_path / "out"
    arguments = ("convert", "dealias:vgg_small", "--weights", tmp_path / "in.safetensors", "--output", output)
    assert run(*arguments, "--filter", "tri3") == 0
    assert capsys.readouterr().out.split()[-1] == str(output / "report.json")
    written = load_file(output / "model.safetensors")
    assert written.keys() == baseline.state_dict().keys()
    assert all(torch.equal(value, baseline.state_dict()[key]) for key, value in written.items())
    report = json.loads((output / "report.json").read_text())
    assert (report["filter"], [site["status"] for site in report["sites"]]) == ("tri3", ["placed"] * 5)
    model = create_model(
        "dealias:vgg_small", antialias=True, filter="tri3", weights=output / "model.safetensors"
    ).eval()
    x = torch.rand(2, 1, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(model(x), antialias(baseline.eval(), x, filter="tri3")(x))

    assert run(*arguments, "--json") == 0
    assert json.loads(capsys.readouterr().out)["filter"] == "bin4"


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["sites", "dealias:vgg_small", "--input-size", "a"], "input-size='a'"),
        (["sites", "dealias:vgg_small", "--input-size", "0"], "input-size='0'"),
        (["sites", "dealias:vgg_small", "--input-size", "1,2,3,4"], "input-size='1,2,3,4'"),
        (["sites", "dealias:vgg_small", "--input-size", "3,32,32"], "example_input="),
        (["sites", "dealias:vgg_small", "--recipe", "best"], "recipe='best'"),
        (["convert", "dealias:vgg_small,antialias=3"], "there are options for"),
        (["convert", "dealias:vgg_small", "--filter", "bin44"], "bin44"),
        (["convert", "dealias:vgg_small", "--weights", "missing.pth"], "missing.pth"),
        (["convert", "torchvision:swin_t", "--strict", "--input-size", "64"], "strict=True"),
    ],
)
def test_bad_arguments_end_in_one_line(error_of: Callable[..., str], tmp_path: Path, arguments: list[str], named: str):
    output = tmp_path / "out"
    more = ["--output", output] if arguments[0] == "convert" else []
    assert named in error_of(*arguments, *more)
    assert not output.exists() or list(output.iterdir()) == []


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
