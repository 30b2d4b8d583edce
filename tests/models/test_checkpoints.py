from __future__ import annotations

import math
import pickle
import random
import re
import warnings
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path

import pytest
import safetensors.torch
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from dealias.convert import antialias
from dealias.errors import InputError
from dealias.models import create_model, load_weights, load_zhang_checkpoint, vgg_small
from dealias.models.checkpoints import checkpoint_content
from dealias.optional import import_torchvision


def zeros(state: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: torch.zeros_like(value) for key, value in state.items()}


WRAPPINGS = {
    "plain.pth": lambda state: state,
    "state_dict.pth.tar": lambda state: {"epoch": 3, "state_dict": state, "arch": "vgg"},
    "model.pt": lambda state: {"model": state, "optimizer": {"lr": 0.1}},
    "nested.pth": lambda state: {"model": {"state_dict": state}},
    "averaged.pth": lambda state: {"state_dict": zeros(state), "state_dict_ema": state},
    "swa.pth": lambda state: {
        "model": zeros(state),
        "model_ema": {"n_averaged": torch.tensor(4), **{f"module.{key}": value for key, value in state.items()}},
    },
    "parallel.pth": lambda state: {f"module.{key}": value for key, value in state.items()},
    "compiled.pth": lambda state: {"state_dict": {f"_orig_mod.module.{key}": value for key, value in state.items()}},
}


def equal(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().items(), other.state_dict().items(), strict=True)
    return all(a == b and torch.equal(x, y) for (a, x), (b, y) in pairs)


@pytest.mark.parametrize("name", WRAPPINGS)
def test_wrapped_checkpoints_load(tmp_path: Path, name: str) -> None:
    source, target = vgg_small(), vgg_small()
    torch.save(WRAPPINGS[name](source.state_dict()), tmp_path / name)
    assert not equal(source, target)
    load_weights(target, tmp_path / name)
    assert equal(source, target)


def test_safetensors_and_checkpoints_without_counters_load(tmp_path: Path) -> None:
    source, target = vgg_small(), vgg_small()
    save_file(source.state_dict(), tmp_path / "a.safetensors")
    load_weights(target, tmp_path / "a.safetensors")
    assert equal(source, target)
    counters = {key: value for key, value in source.state_dict().items() if "num_batches" not in key}
    torch.save(counters, tmp_path / "old.pth")
    other = vgg_small()
    load_weights(other, tmp_path / "old.pth")
    assert equal(source, other)


def test_a_file_has_the_tensors_and_what_is_said_of_them() -> None:
    weight = torch.arange(6.0).view(2, 3)
    content = checkpoint_content({"a": weight, "b": weight, "c": weight.t()}, step="3")
    stored = safetensors.torch.load(content)
    assert all(torch.equal(stored[key], value) for key, value in {"a": weight, "b": weight, "c": weight.t()}.items())
    assert b'{"__metadata__":{' in content
    assert b'"step":"3"' in content


def test_torchvisions_own_densenet_files_load(tmp_path: Path) -> None:
    models = import_torchvision().models
    source, target = (models.DenseNet(8, (2, 2), 8, num_classes=3) for _ in range(2))
    old = {re.sub(r"(norm|conv)([12])\.", r"\1.\2.", key): value for key, value in source.state_dict().items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    torch.save(old, tmp_path / "densenet.pth")
    load_weights(target, tmp_path / "densenet.pth")
    assert equal(source, target)


def test_misfits_name_keys_and_shapes_and_load_nothing(tmp_path: Path) -> None:
    state = vgg_small(num_classes=3).state_dict()
    for key in list(state)[:5]:
        state[f"stem.{key}"] = state.pop(key)
    torch.save(state, tmp_path / "other.pth")
    model = vgg_small()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(InputError) as caught:
        load_weights(model, tmp_path / "other.pth")
    message = str(caught.value)
    assert "4 missing keys" not in message
    assert "5 missing keys (features.0.weight, features.1.weight, features.1.bias, ...)" in message
    assert "6 unexpected keys" not in message
    assert "5 unexpected keys (stem.features.0.weight," in message
    assert "classifier.weight is (3, 64) in the file and (10, 64) in the model" in message
    assert "2 shape mismatches" in message
    assert "\n" not in message
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_misfits_that_an_argument_would_cure(tmp_path: Path) -> None:
    torch.save(vgg_small(num_classes=3).state_dict(), tmp_path / "three.pth")
    torch.save(vgg_small(in_chans=2).state_dict(), tmp_path / "two.pth")
    torch.save(vgg_small(in_chans=2, num_classes=3).state_dict(), tmp_path / "both.pth")
    with pytest.raises(
        InputError, match=r"classifier.weight is \(3, 64\) .* and \(10, 64\) .*: .* with num_classes=3$"
    ):
        load_weights(vgg_small(), tmp_path / "three.pth")
    with pytest.raises(InputError, match=r"features.0.weight is \(16, 2, 3, 3\) in .* with in_chans=2$"):
        load_weights(vgg_small(), tmp_path / "two.pth")
    with pytest.raises(InputError, match=r"classifier.bias is \(3,\) in the file and \(10,\) in the model\)$"):
        load_weights(vgg_small(), tmp_path / "both.pth")


def test_a_checkpoint_of_another_head_loads_the_rest(tmp_path: Path) -> None:
    source = vgg_small(num_classes=3)
    torch.save(source.state_dict(), tmp_path / "three.pth")
    with pytest.warns(UserWarning, match=r"has 3 classes: classifier.weight, classifier.bias are not loaded"):
        model = create_model("dealias:vgg_small", num_classes=7, weights=tmp_path / "three.pth", new_head=True)
    assert model.state_dict()["classifier.weight"].shape == (7, 64)
    stored = source.state_dict()
    assert all(torch.equal(value, stored[key]) for key, value in model.state_dict().items() if "classifier" not in key)
    with warnings.catch_warnings(action="error"):
        load_weights(vgg_small(num_classes=3), tmp_path / "three.pth", new_head=True)
    with pytest.raises(
        InputError,
        match=r"new_head=True .* but 2 tensors \(classifier.weight, classifier.bias\), or build",
    ):
        create_model("dealias:vgg_small", num_classes=7, weights=tmp_path / "three.pth")
    with pytest.raises(InputError, match=r"1 shape mismatch .*in_chans=1$"):
        load_weights(vgg_small(in_chans=2, num_classes=3), tmp_path / "three.pth", new_head=True)


def test_a_new_head_without_weights_is_refused() -> None:
    with pytest.raises(InputError, match=r"^new_head=True changes nothing without a checkpoint: give weights too$"):
        create_model("dealias:vgg_small", new_head=True)


def test_wrappers_inside_names_are_taken_off_unless_the_model_has_them(tmp_path: Path) -> None:
    source, target = vgg_small(), vgg_small()
    state = {key.replace("features.", "features.module."): value for key, value in source.state_dict().items()}
    assert "features.module.0.weight" in state
    torch.save({"state_dict": state}, tmp_path / "parallel.pth")
    load_weights(target, tmp_path / "parallel.pth")
    assert equal(source, target)
    wrapped = vgg_small()
    wrapped.features = nn.DataParallel(wrapped.features)
    load_weights(wrapped, tmp_path / "parallel.pth")
    assert all(torch.equal(value, state[key]) for key, value in wrapped.state_dict().items())


def test_files_that_are_no_checkpoints(tmp_path: Path) -> None:
    good = tmp_path / "good.pth"
    torch.save(vgg_small().state_dict(), good)
    generator = random.Random(0)
    contents = {
        "empty.pth": b"",
        "text.pth": b"hello, I am a text file\n" * 20,
        "truncated.pth": good.read_bytes()[:-2000],
        "jpeg.pth": b"\xff\xd8\xff\xe0" + generator.randbytes(500),
        "half.safetensors": b"\x10\x00\x00\x00\x00\x00\x00\x00{}",
        **{f"noise{i}.pth": bytes([i]) + generator.randbytes(200) for i in range(256)},
        **{f"pickle{i}.pth": b"\x80\x02" + generator.randbytes(60) for i in range(200)},
    }
    for name, content in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(InputError, match=re.escape(name)) as caught:
            load_weights(vgg_small(), tmp_path / name)
        assert "\n" not in str(caught.value)
    torch.save(nn.Linear(2, 2), tmp_path / "whole.pth")
    torch.save({"epoch": 3}, tmp_path / "epoch.pth")
    torch.save([1, 2], tmp_path / "list.pth")
    for name, message in [
        ("whole.pth", "save model.state_dict"),
        ("epoch.pth", "has no state dict"),
        ("list.pth", "has no state dict"),
        ("nowhere.pth", "is not a file"),
        (".", "is not a file"),
    ]:
        with pytest.raises(InputError, match=message):
            load_weights(vgg_small(), tmp_path / name)


def binomial(taps: int) -> Tensor:
    row = torch.tensor([math.comb(taps - 1, i) / 2 ** (taps - 1) for i in range(taps)])
    return torch.outer(row, row).expand(64, 1, taps, taps).clone()


def blurred_numbers(features: nn.Sequential, filters: dict[int, int], prefix: str = "features") -> dict[str, str]:
    """New names of a Sequential's layers with `filters[i]` layers inserted behind layer i, and the buffers of those."""
    names, shift = {}, 0
    for index, layer in enumerate(features):
        names |= {f"{prefix}.{index}.{key}": f"{prefix}.{index + shift}.{key}" for key in layer.state_dict()}
        shift += filters.get(index, 0)
    return names


def released_file(model: nn.Module, rename, filters: list[tuple[str, str]], taps: int = 4) -> dict[str, Tensor]:
    """A state dict as the paper's networks write it: renamed layers, and (before which layer, name) of the buffers."""
    state: OrderedDict[str, Tensor] = OrderedDict()
    for key, value in model.state_dict().items():
        state |= {name: binomial(taps) for before, name in filters if key.startswith(before)}
        state[rename(key)] = value
        filters = [(before, name) for before, name in filters if not key.startswith(before)]
    assert not filters
    return state


def resnet(depth: str) -> tuple[nn.Module, dict[str, Tensor]]:
    model = getattr(import_torchvision().models, depth)(num_classes=5)
    last = "conv2" if depth == "resnet18" else "conv3"
    strided = {f"layer{stage}.0.{last}": f"layer{stage}.0.{last}.1" for stage in (2, 3, 4)}
    shortcuts = {
        f"layer{stage}.0.downsample.{i}": f"layer{stage}.0.downsample.{i + 1}" for stage in (2, 3, 4) for i in (0, 1)
    }

    def rename(key: str) -> str:
        layer, _, leaf = key.rpartition(".")
        return f"{(strided | shortcuts).get(layer, layer)}.{leaf}"

    filters = [("layer1.0.conv1", "maxpool.1.filt")]
    filters += [(old, f"{old}.0.filt") for old in strided]
    filters += [(old, old.replace("downsample.0", "downsample.0.filt")) for old in shortcuts if old.endswith("0")]
    return model, released_file(model, rename, filters)


def mobilenet() -> tuple[nn.Module, dict[str, Tensor]]:
    model = import_torchvision().models.mobilenet_v2(num_classes=5, width_mult=0.35)
    blocks = [2, 4, 7, 14]
    moved = {f"features.{b}.conv.{i}": f"features.{b}.conv.{i + 1}" for b in blocks for i in (2, 3)}

    def rename(key: str) -> str:
        layer, _, leaf = key.rpartition(".")
        return f"{moved.get(layer, layer)}.{leaf}"

    return model, released_file(model, rename, [(f"features.{b}.conv.2", f"features.{b}.conv.2.filt") for b in blocks])


def densenet() -> tuple[nn.Module, dict[str, Tensor]]:
    model = import_torchvision().models.DenseNet(8, (2, 2, 2), 8, num_classes=5)
    filters = [("features.denseblock1.denselayer1.norm1.weight", "features.pool0.1.filt")]
    filters += [
        (f"features.denseblock{i + 1}.denselayer1.norm1.weight", f"features.transition{i}.pool.filt") for i in (1, 2)
    ]
    return model, released_file(model, lambda key: key, filters)


def sequential(name: str) -> tuple[nn.Module, dict[str, Tensor]]:
    models = import_torchvision().models
    with torch.device("meta"):  # the classifier is huge and replaced
        model = models.alexnet() if name == "alexnet" else models.vgg11_bn()
    model.classifier = nn.Sequential(nn.Linear(512, 4), nn.ReLU(), nn.Linear(4, 5))
    model.to_empty(device="cpu")
    for tensor in model.state_dict().values():
        tensor.copy_(torch.rand(tensor.shape))
    # AlexNet's first convolution, at stride 2, is blurred too; each pool becomes a maximum and a blur
    behind = {i: 1 for i, layer in enumerate(model.features) if isinstance(layer, nn.MaxPool2d)}
    if name == "alexnet":
        behind[1] = 1
    names = blurred_numbers(model.features, behind)
    state = released_file(model, lambda key: names.get(key, key), [])
    state |= {f"features.{100 + i}.filt": binomial(4) for i in behind}
    return model, state


@pytest.mark.parametrize(
    "build",
    [
        lambda: resnet("resnet18"),
        lambda: resnet("resnet50"),
        mobilenet,
        densenet,
        lambda: sequential("vgg"),
        lambda: sequential("alexnet"),
    ],
    ids=["resnet18", "resnet50", "mobilenet_v2", "densenet", "vgg", "alexnet"],
)
def test_zhang_checkpoints_load(tmp_path: Path, build) -> None:
    model, state = build()
    expected = {key: value.clone() for key, value in model.state_dict().items()}
    assert any(key not in expected and not key.endswith(".filt") for key in state) or isinstance(
        model, import_torchvision().models.DenseNet
    )
    # the reference's training script wraps AlexNet's and VGG's features, other networks whole
    inside = {key.replace("features.", "features.module."): value for key, value in state.items()}
    whole = {f"module.{key}": value for key, value in state.items()}
    is_sequential = not any(key.startswith(("layer", "features.denseblock", "features.0.0")) for key in state)
    torch.save({"state_dict": inside if is_sequential else whole}, tmp_path / "lpf4.pth")
    for load in (load_zhang_checkpoint, load_weights):
        for tensor in model.state_dict().values():
            tensor.zero_()
        load(model, tmp_path / "lpf4.pth")
        assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())


def test_zhang_names_of_the_design() -> None:
    state = resnet("resnet50")[1]
    assert {"layer2.0.conv3.1.weight", "layer2.0.downsample.1.weight", "layer2.0.downsample.2.weight"} <= state.keys()
    assert {"maxpool.1.filt", "layer2.0.conv3.0.filt", "layer2.0.downsample.0.filt"} <= state.keys()


def test_zhang_checkpoints_that_do_not_fit(tmp_path: Path) -> None:
    path = tmp_path / "lpf4.pth"
    model, state = resnet("resnet18")
    torch.save(state, path)
    models = import_torchvision().models
    converted = antialias(model, torch.zeros(1, 3, 64, 64), filter="bin5", recipe="zhang2019")
    with pytest.raises(InputError, match=r"filters of 4 taps \(maxpool.1.filt\), the model of 5: .* filter=4"):
        load_zhang_checkpoint(converted, path)
    load_zhang_checkpoint(antialias(model, torch.zeros(1, 3, 64, 64), recipe="zhang2019"), path)
    with pytest.raises(InputError, match=r"layer2.0.bn1.bias \(128,\) in the file stands where layer1.2"):
        load_zhang_checkpoint(models.resnet34(num_classes=5), path)
    torch.save({**state, "layer4.9.downsample.9.bias": torch.rand(3)}, tmp_path / "more.pth")
    with pytest.raises(InputError, match="123 tensors beside the filters, the model 122"):
        load_zhang_checkpoint(model, tmp_path / "more.pth")
    with pytest.raises(InputError, match=r"fc.weight is \(5, 512\) in the file and \(6, 512\).* with num_classes=5$"):
        load_zhang_checkpoint(models.resnet18(num_classes=6), path)
    wide = models.resnet18(num_classes=5)
    wide.layer2[0].conv2 = nn.Conv2d(128, 128, 5, bias=False)
    with pytest.raises(InputError, match=r"layer2.0.conv2.1.weight is \(128, 128, 3, 3\) in the file"):
        load_zhang_checkpoint(wide, path)
    uneven = antialias(model, torch.zeros(1, 3, 64, 64), filter=[1, 2, 3, 4], recipe="zhang2019")
    with pytest.raises(InputError, match=r"other filters of 4 taps \(maxpool.1.filt\)"):
        load_zhang_checkpoint(uneven, path)
    swapped = {key.replace("bn1", "norm1"): value for key, value in state.items()}
    torch.save(swapped, path)
    with pytest.raises(InputError, match=r"unexpected keys \(layer1.0.norm1.bias|unexpected keys \(norm1.bias"):
        load_zhang_checkpoint(model, path)


def test_zhang_checkpoints_in_any_order(tmp_path: Path) -> None:
    model, state = mobilenet()
    expected = {key: value.clone() for key, value in model.state_dict().items()}
    save_file(dict(sorted(state.items())), tmp_path / "mobilenet_v2_lpf4.safetensors")
    for tensor in model.state_dict().values():
        tensor.zero_()
    load_zhang_checkpoint(model, tmp_path / "mobilenet_v2_lpf4.safetensors")
    assert all(torch.equal(value, expected[key]) for key, value in model.state_dict().items())


def test_models_converted_in_another_way_than_the_released_ones_are_told(tmp_path: Path) -> None:
    model, state = resnet("resnet18")
    torch.save(state, tmp_path / "lpf4.pth")
    example = torch.zeros(1, 3, 64, 64)
    with pytest.warns(UserWarning, match=r"its stem pools over \(3, 3\) pixels.*recipe='zhang2019'"):
        load_zhang_checkpoint(antialias(model, example), tmp_path / "lpf4.pth")
    with pytest.warns(UserWarning, match="8 places, the released network in 7"):
        load_zhang_checkpoint(antialias(model, example, recipe="zhang2019", stem=True), tmp_path / "lpf4.pth")
    circular = antialias(model, example, recipe="zhang2019", padding_mode="circular")
    with pytest.warns(UserWarning, match="padding_mode='circular'"):
        load_zhang_checkpoint(circular, tmp_path / "lpf4.pth")
    with warnings.catch_warnings(action="error"):
        load_zhang_checkpoint(antialias(model, example, recipe="zhang2019"), tmp_path / "lpf4.pth")


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (lambda tensor: tensor.to(torch.int8), "int8"),
        (lambda tensor: tensor > 0, "bool"),
        (lambda tensor: tensor.to(torch.complex64), "complex64"),
        (lambda tensor: tensor.to_sparse(), "sparse_coo"),
        (lambda tensor: tensor * float("nan"), "NaN"),
        (lambda tensor: torch.quantize_per_tensor(tensor, 0.1, 0, torch.qint8), "quantised"),
    ],
)
def test_tensors_of_another_kind_are_refused_by_key(
    tmp_path: Path, change: Callable[[Tensor], Tensor], kind: str
) -> None:
    model = vgg_small()
    state = {**model.state_dict(), "classifier.weight": change(model.state_dict()["classifier.weight"])}
    torch.save(state, tmp_path / "odd.pth")
    with pytest.raises(
        InputError, match=rf"has {kind} values in classifier.weight, expected torch.float32 without NaN"
    ):
        load_weights(model, tmp_path / "odd.pth")
    half = {
        key: value.to(torch.float16) if value.is_floating_point() else value
        for key, value in vgg_small().state_dict().items()
    }
    torch.save(half, tmp_path / "half.pth")
    load_weights(model, tmp_path / "half.pth")


@pytest.mark.parametrize("name", ["weights.pth", "weights.safetensors"])
@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\xff\xd8\xff\xe0JFIF", "it is a JPEG picture"),
        (b"", "it is empty"),
        (b"<!DOCTYPE html>", "HTML"),
        (b"version https://git-lfs.github.com/spec/v1", "git lfs pull"),
        (pickle.dumps({"a": {1}}), "a pickle of other objects"),
    ],
)
def test_what_a_file_really_is(tmp_path: Path, name: str, content: bytes, kind: str) -> None:
    (tmp_path / name).write_bytes(content)
    with pytest.raises(InputError, match=rf"weights='.*{name}' is not a checkpoint: .*{kind}") as refusal:
        load_weights(vgg_small(), tmp_path / name)
    assert "\n" not in str(refusal.value)


def test_safetensors_under_another_name(tmp_path: Path) -> None:
    save_file(vgg_small().state_dict(), tmp_path / "weights.pth")
    with pytest.raises(InputError, match=r"it is a safetensors file: name it .safetensors"):
        load_weights(vgg_small(), tmp_path / "weights.pth")
