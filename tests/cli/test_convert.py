import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file

from dealias import antialias
from dealias.models import create_model
from dealias.models.spec import ModelSpec


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


def test_convert_to_an_alias_free_network(run: Callable[..., int], tmp_path: Path):
    network = "dealias:vgg_small,padding_mode=circular"
    assert run("convert", network, "--method", "alias-free", "--output", tmp_path / "out") == 0
    report = json.loads((tmp_path / "out" / "report.json").read_text())
    assert report["filter"] == "ideal"
    assert [site["kind"] for site in report["sites"]] == ["max_pool"] * 5 + ["nonlinearity"] * 5
    assert all(site["extra_flops"] > 0 for site in report["sites"])
    weights = tmp_path / "out" / "model.safetensors"
    with safe_open(weights, "pt") as file:
        assert (file.metadata()["method"], file.metadata()["filter"]) == ("alias-free", "ideal")
    spec = ModelSpec.parse(f"{network},method=alias-free,weights={weights}")
    x = torch.rand(2, 1, 32, 32)
    plain = create_model("dealias:vgg_small", padding_mode="circular", weights=weights).eval()
    with torch.no_grad():
        torch.testing.assert_close(spec.build()(x), antialias(plain, x, method="alias-free")(x))


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["dealias:vgg_small,antialias=3"], "there are options for"),
        (["dealias:vgg_small", "--filter", "bin44"], "bin44"),
        (["dealias:vgg_small", "--weights", "missing.pth"], "missing.pth"),
        (["torchvision:swin_t", "--strict", "--input-size", "64"], "strict=True"),
    ],
)
def test_bad_arguments_end_in_one_line(error_of: Callable[..., str], tmp_path: Path, arguments: list[str], named: str):
    output = tmp_path / "out"
    assert named in error_of("convert", *arguments, "--output", output)
    assert not output.exists() or list(output.iterdir()) == []
