import json
from collections.abc import Callable

import pytest


def test_certify_says_what_hinders(run: Callable[..., int], capsys: pytest.CaptureFixture[str]):
    assert run("certify", "dealias:vgg_small", "--shift", "1", "--shift", "2,3") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("not exact: 2 shifts, total stride 32x32")
    assert "padding with zeros in `features.0`" in shown


def test_certify_of_an_anchored_copy(run: Callable[..., int], capsys: pytest.CaptureFixture[str]):
    assert run("certify", "dealias:vgg_small", "--circular", "--polyphase", "--shift", "5", "--json") == 0
    certificate = json.loads(capsys.readouterr().out)
    assert certificate["exact"]
    assert certificate["reasons"] == []


def test_certify_under_shifts_by_fractions(run: Callable[..., int], capsys: pytest.CaptureFixture[str]):
    assert run("certify", "dealias:vgg_small", "--circular", "--alias-free", "--shift", "0.5", "--shift", "1/3,2") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("not exact: 2 shifts")
    assert "- a non-linearity of a degree above 3 in `features.2`" in shown


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (["--shift", "a"], "shift='a'"),
        (["--filter", "bin4"], "filter='bin4'"),
        (["--shift", "1,2,3"], "shifts="),
        (["--shift", "1/0"], "shift='1/0'"),
        (["--polyphase", "--alias-free"], "--alias-free"),
    ],
)
def test_bad_arguments_end_in_one_line(error_of: Callable[..., str], arguments: list[str], named: str):
    assert named in error_of("certify", "dealias:vgg_small", *arguments)
