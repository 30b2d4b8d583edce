import sys

import pytest

from dealias.cli import main


def run(monkeypatch: pytest.MonkeyPatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["dealias", "models", *arguments])
    with pytest.raises(SystemExit) as stopped:
        main()
    return int(stopped.value.code or 0)


@pytest.mark.parametrize("pattern", ["vgg16_bn", "*:VGG16_*"])
def test_names_are_listed_with_their_source(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], pattern: str
) -> None:
    assert run(monkeypatch, pattern) == 0
    rows = [line.split() for line in capsys.readouterr().out.splitlines()]
    assert rows == [
        ["source", "model"],
        ["timm", "timm:vgg16_bn"],
        ["torchvision", "torchvision:vgg16_bn"],
        ["2", "networks"],
    ]


def test_no_match_is_an_error(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(monkeypatch, "no_such_network") == 1
    assert "error: pattern='no_such_network' matches no network" in capsys.readouterr().err


def test_libraries_that_are_not_installed_are_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None if name == "timm" else name)
    assert run(monkeypatch, "vgg_small") == 0
    shown = capsys.readouterr().out
    assert "1 network; not installed: timm (pip install 'dealias[zoo]')" in shown
