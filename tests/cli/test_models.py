import sys
from collections.abc import Callable

import pytest


@pytest.mark.parametrize("pattern", ["vgg16_bn", "*:VGG16_*"])
def test_names_are_listed_with_their_source(
    run: Callable[..., int], capsys: pytest.CaptureFixture[str], pattern: str
) -> None:
    assert run("models", pattern) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows == [
        ["source", "model"],
        ["timm", "timm:vgg16_bn"],
        ["torchvision", "torchvision:vgg16_bn"],
        ["2", "networks"],
    ]


def test_no_match_is_an_error(error_of: Callable[..., str]) -> None:
    assert "pattern='no_such_network' matches no network" in error_of("models", "no_such_network")


def test_libraries_that_are_not_installed_are_named(
    run: Callable[..., int], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "timm" else name)
    assert run("models", "vgg_small") == 0
    shown = capsys.readouterr().out
    assert "1 network; not installed: timm (pip install 'dealias[zoo]')" in shown
