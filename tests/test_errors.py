"""Bad input to the layers: one error that names the argument, its value and what would do."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis.strategies import text

import dealias
from dealias import functional, nn
from dealias.errors import InputError, InputTypeError, MissingExtraError, printable, shown, users_code

IMAGE = torch.zeros(1, 2, 6, 6)

BAD_ARGUMENTS = [
    ({"filter": "gauss"}, InputError, "filter='gauss'", "bin4"),
    ({"filter": []}, InputError, "filter=[]", "at least one tap"),
    ({"filter": [1.0, -1.0]}, InputError, "filter=[1.0, -1.0]", "sum other than 0"),
    ({"filter": [float("nan"), 1.0]}, InputError, "filter=[nan, 1.0]", "finite"),
    ({"stride": 0}, InputError, "stride=0", "at least 1"),
    ({"stride": (2, -1)}, InputError, "stride=(2, -1)", "at least 1"),
    ({"stride": (2, 2, 2)}, InputError, "stride=(2, 2, 2)", "one int, or 2"),
    ({"stride": 2.0}, InputTypeError, "stride=2.0", "an int"),
    ({"stride": True}, InputTypeError, "stride=True", "an int"),
    ({"stride": (2, False)}, InputTypeError, "stride=(2, False)", "an int"),
    ({"stride": "2"}, InputTypeError, "stride='2'", "an int"),
    ({"stride": ()}, InputTypeError, "stride=()", "an int"),
    ({"stride": b"2"}, InputTypeError, "stride=b'2'", "an int"),
    ({"stride": {2}}, InputTypeError, "stride={2}", "an int"),
    ({"stride": {2: 2}}, InputTypeError, "stride={2: 2}", "an int"),
    ({"stride": torch.tensor(True)}, InputTypeError, "stride=tensor(True)", "an int"),
    ({"stride": torch.tensor(2.0)}, InputTypeError, "stride=tensor(2.)", "an int"),
    ({"stride": torch.ones((), device="meta", dtype=torch.int64)}, InputTypeError, "stride=tensor(...,", "an int"),
    ({"stride": np.bool_(True)}, InputTypeError, "stride=np.True_", "an int"),
    ({"stride": 10**30}, InputError, f"stride={10**30}", "less than 2**63"),
    ({"stride": 10**5000}, InputError, "stride=<int", "less than 2**63"),
    ({"stride": [2] * 10**4}, InputError, "stride=[2, 2", "one int, or 2"),
    ({"filter": 1025}, InputError, "filter=1025", "at most 1024"),
    ({"filter": b"121"}, InputTypeError, "filter=b'121'", "1-D sequence"),
    ({"filter": {1.0, 2.0}}, InputTypeError, "filter={1.0, 2.0}", "1-D sequence"),
    ({"filter": [10**400]}, InputTypeError, "filter=[1000", "1-D sequence"),
    ({"filter": np.ones(9000)}, InputError, "filter=array([1.", "at most 1024"),
    ({"filter": ("bin4", "tri3", "none")}, InputError, "filter=('bin4', 'tri3', 'none')", "one, or 2"),
    ({"filter": ("bin4", "gauss")}, InputError, "filter='gauss'", "bin4"),
    ({"padding_mode": ["reflect"]}, InputError, "padding_mode=['reflect']", "reflect, replicate"),
    ({"padding_mode": "mirror"}, InputError, "padding_mode='mirror'", "reflect, replicate, circular, zeros"),
    ({"padding_mode": None}, InputError, "padding_mode=None", "reflect, replicate, circular, zeros"),
]
BAD_POOL_ARGUMENTS = [
    ({"kernel_size": 0}, InputError, "kernel_size=0", "at least 1"),
    ({"kernel_size": 2.5}, InputTypeError, "kernel_size=2.5", "an int"),
    ({"kernel_size": 3, "padding": 2}, InputError, "padding=2", "at most 1"),
    ({"kernel_size": 3, "padding": -1}, InputError, "padding=-1", "at least 0"),
    ({"kernel_size": b"3"}, InputTypeError, "kernel_size=b'3'", "an int"),
    ({"kernel_size": 10**30}, InputError, f"kernel_size={10**30}", "less than 2**31"),
    ({"kernel_size": 3, "padding": True}, InputTypeError, "padding=True", "an int"),
    ({"kernel_size": 3, "padding": {1}}, InputTypeError, "padding={1}", "an int"),
    ({"kernel_size": 2, "dilation": 10**30}, InputError, f"dilation={10**30}", "less than 2**31"),
    ({"kernel_size": 2, "ceil_mode": "no"}, InputTypeError, "ceil_mode='no'", "True or False"),
    ({"kernel_size": 2, "ceil_mode": 1}, InputTypeError, "ceil_mode=1", "True or False"),
    ({"kernel_size": 2, "ceil_mode": None}, InputTypeError, "ceil_mode=None", "True or False"),
    ({"kernel_size": 2, "dilation": 0}, InputError, "dilation=0", "at least 1"),
]
BAD_INPUT = [
    (torch.zeros(2, 6), InputError, "(2, 6)", "(batch, channels, height, width)"),
    (torch.zeros(1, 2, 6, 6, 6), InputError, "(1, 2, 6, 6, 6)", "(batch, channels, height, width)"),
    (torch.zeros(1, 2, 0, 6), InputError, "(1, 2, 0, 6)", "empty"),
    (torch.zeros(1, 0, 6, 6), InputError, "(1, 0, 6, 6)", "no channel"),
    (torch.zeros(1, 2, 6, 6, dtype=torch.int64), InputTypeError, "torch.int64", "float32"),
    (torch.zeros(1, 2, 6, 6, dtype=torch.bool), InputTypeError, "torch.bool", "float32"),
    (torch.zeros(1, 2, 6, 6, dtype=torch.complex64), InputTypeError, "torch.complex64", "float32"),
    (torch.ones(1, 2, 6, 6).to_sparse(), InputTypeError, "sparse_coo", "input.to_dense()"),
    (torch.ones(6, 6).to_sparse_csr(), InputTypeError, "sparse_csr", "input.to_dense()"),
    (torch.ones(1, 2, 6, 6).to_mkldnn(), InputTypeError, "_mkldnn", "input.to_dense()"),
    (torch.nested.nested_tensor([torch.ones(2, 6, 6)]), InputTypeError, "nested", "dense"),
    (torch.nested.nested_tensor([torch.ones(2, 6, 6)], layout=torch.jagged), InputTypeError, "nested", "dense"),
    (np.zeros((1, 2, 6, 6)), InputTypeError, "ndarray", "torch.Tensor"),
    (None, InputTypeError, "NoneType", "torch.Tensor"),
]


@pytest.mark.parametrize(("arguments", "error", "names", "helps"), BAD_ARGUMENTS, ids=lambda value: shown(value)[:30])
def test_bad_arguments(arguments: dict[str, Any], error: type[InputError], names: str, helps: str) -> None:
    calls = [
        lambda: dealias.BlurPool2d(**arguments),
        lambda: nn.ReLUBlurPool2d(**arguments),
        lambda: dealias.MaxBlurPool2d(2, **arguments),
        lambda: functional.blur_pool2d(IMAGE, **arguments),
        lambda: functional.relu_blur_pool2d(IMAGE, **arguments),
        lambda: functional.max_blur_pool2d(IMAGE, 2, **arguments),
    ]
    for call in calls:
        with pytest.raises(error) as caught:
            call()
        message = str(caught.value)
        assert names in message
        assert helps in message
        assert "\n" not in message


@pytest.mark.parametrize(
    ("arguments", "error", "names", "helps"), BAD_POOL_ARGUMENTS, ids=lambda value: shown(value)[:30]
)
def test_bad_pool_arguments(arguments: dict[str, Any], error: type[InputError], names: str, helps: str) -> None:
    for call in (lambda: dealias.MaxBlurPool2d(**arguments), lambda: functional.max_blur_pool2d(IMAGE, **arguments)):
        with pytest.raises(error) as caught:
            call()
        assert names in str(caught.value)
        assert helps in str(caught.value)


@pytest.mark.parametrize(("x", "error", "names", "helps"), BAD_INPUT, ids=lambda value: shown(value)[:20])
def test_bad_input(x: Any, error: type[InputError], names: str, helps: str) -> None:
    for layer in (dealias.BlurPool2d(), dealias.BlurPool2d("none"), nn.ReLUBlurPool2d(), dealias.MaxBlurPool2d(2)):
        with pytest.raises(error) as caught:
            layer(x)
        assert str(caught.value).startswith("input ")
        assert names in str(caught.value)
        assert helps in str(caught.value)


@pytest.mark.parametrize("padding_mode", ["reflect", "circular"])
def test_a_map_smaller_than_the_kernel(padding_mode: Any) -> None:
    with pytest.raises(InputError, match=r"\(1, 2, 6, 6\).*kernel_size=4, padding=0, dilation=2.*at least 7"):
        dealias.MaxBlurPool2d(4, dilation=2, padding_mode=padding_mode)(IMAGE)


def test_ints_of_all_kinds_are_taken() -> None:
    expected = functional.blur_pool2d(IMAGE, stride=(3, 3))
    for stride in (3, np.int64(3), [3, 3], (3,), torch.Size((3, 3)), torch.tensor(3), (np.int32(3), 3)):
        assert torch.equal(functional.blur_pool2d(IMAGE, stride=stride), expected)


def test_the_errors_are_what_python_users_expect() -> None:
    assert issubclass(InputError, ValueError)
    assert issubclass(InputTypeError, TypeError)
    assert issubclass(MissingExtraError, ImportError)


@pytest.mark.parametrize(
    ("raised", "said"),
    [
        (ValueError("one\ntwo"), "ValueError: one"),
        (SystemExit(7), "it ends the program (SystemExit: 7)"),
        (RecursionError("maximum recursion depth exceeded"), "RecursionError: maximum"),
        (MemoryError(), "there is not enough memory"),
        (KeyError(), "KeyError"),
        (RuntimeError("\x1b[31m" + "x" * 1000), r"RuntimeError: \x1b[31mxxx"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_whatever_the_users_code_raises_is_one_line(raised: BaseException, said: str) -> None:
    with pytest.raises(InputError) as caught, users_code("model='a:b' fails"):
        raise raised
    message = str(caught.value)
    assert message.startswith(f"model='a:b' fails: {said}")
    assert len(message) < 250
    assert message.isprintable()
    assert caught.value.__cause__ is raised


def test_ctrl_c_and_our_own_errors_pass() -> None:
    for raised in (KeyboardInterrupt(), InputError("ours"), MissingExtraError("ours")):
        with pytest.raises(type(raised)) as caught, users_code("model fails"):
            raise raised
        assert caught.value is raised


@given(text())
def test_printable_text_is_one_line_that_utf8_takes(words: str) -> None:
    assert printable(words).isprintable()
    printable(words).encode()
    if words.isprintable():
        assert printable(words) == words
