"""Converted networks where networks are used: training in every mode, export, and as the backbone of another model."""

from __future__ import annotations

import copy
import io
import subprocess
import sys
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from helpers import sweep
from helpers.conversion import randomize
from torch import Tensor, nn
from torch.ao.quantization import get_default_qconfig_mapping
from torch.ao.quantization.quantize_fx import convert_fx, prepare_fx
from torch.utils.checkpoint import checkpoint_sequential

from dealias import antialias
from dealias.models import create_model
from dealias.nn import BlurPool2d, MaxBlurPool2d
from dealias.optional import import_torchvision

models = import_torchvision().models


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def small_resnet() -> nn.Module:
    """All kinds of sites of a ResNet, with few layers."""
    return randomize(models.ResNet(models.resnet.BasicBlock, [1, 1, 1, 1], num_classes=5))


def convert(model: nn.Module) -> nn.Module:
    return antialias(model, torch.rand(1, 3, 64, 64))


def blurs(model: nn.Module) -> int:
    return sum(isinstance(module, BlurPool2d | MaxBlurPool2d) for module in model.modules())


def gradients(model: nn.Module, x: Tensor, forward=None) -> list[Tensor]:
    model.zero_grad()
    ((model if forward is None else forward)(x) ** 2).mean().backward()
    return [parameter.grad.clone() for parameter in model.parameters()]


def assert_all_close(actual, expected, rtol: float = 1e-4) -> None:
    for one, other in zip(actual, expected, strict=True):
        torch.testing.assert_close(one, other, rtol=0, atol=rtol * float(other.abs().max()))


def fit(model: nn.Module, x: Tensor, autocast: bool = False) -> list[float]:
    """Losses of a few steps on one batch."""
    optimizer, target, losses = torch.optim.SGD(model.parameters(), lr=0.02), torch.arange(len(x)) % 5, []
    model.train()
    for _ in range(8):
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits = model(x)
        loss = F.cross_entropy(logits.float(), target)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(float(loss.detach()))
    return losses


@pytest.mark.parametrize("layout", sweep.only([torch.channels_last], [torch.contiguous_format, torch.channels_last]))
def test_training_under_autocast_in_both_layouts(layout: torch.memory_format) -> None:
    model, x = convert(small_resnet()), torch.rand(8, 3, 64, 64)
    expected = fit(copy.deepcopy(model), x)
    other = model.to(memory_format=layout)
    losses = fit(other, x.to(memory_format=layout), autocast=True)
    assert losses[-1] < 0.7 * losses[0]
    assert losses[:3] == pytest.approx(expected[:3], rel=0.05)


def test_layouts_agree_and_are_kept() -> None:
    model, x = convert(small_resnet()), torch.rand(2, 3, 64, 64)
    expected = gradients(model, x)
    seen = []
    for module in model.modules():
        if isinstance(module, BlurPool2d | MaxBlurPool2d):
            module.register_forward_hook(lambda module, args, output: seen.append(output))
    model.to(memory_format=torch.channels_last)
    assert_all_close(gradients(model, x.to(memory_format=torch.channels_last)), expected)
    assert len(seen) == blurs(model) == 7
    assert all(map_.is_contiguous(memory_format=torch.channels_last) for map_ in seen)


def check_compiled_gradients(model: nn.Module, backend: str) -> None:
    x = torch.rand(2, 3, 65, 65)
    expected = gradients(model, x)
    torch.compiler.reset()
    assert_all_close(gradients(model, x, torch.compile(model, fullgraph=True, backend=backend)), expected, rtol=1e-3)


def test_training_compiles_in_one_graph() -> None:
    check_compiled_gradients(convert(small_resnet()), "aot_eager")


@pytest.mark.sweep
@pytest.mark.parametrize("name", ["torchvision:mobilenet_v2", "torchvision:densenet121", "timm:resnet18d", None])
def test_training_compiles_to_machine_code(name: str | None) -> None:
    model = small_resnet() if name is None else randomize(create_model(name, num_classes=5))
    check_compiled_gradients(convert(model), "inductor")


DISTRIBUTED = """
import sys
import torch
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel
from dealias.models import create_model

dist.init_process_group("gloo")
torch.manual_seed(0)
model = create_model("dealias:vgg_small", antialias=True).eval()  # each process has its own batch statistics
images = torch.rand(4, 1, 32, 32)
rank = dist.get_rank()
parallel = DistributedDataParallel(model)
(parallel(images[2 * rank : 2 * rank + 2]) ** 2).mean().backward()
gathered = [parameter.grad.clone() for parameter in model.parameters()]
model.zero_grad()
(model(images) ** 2).mean().backward()
for one, parameter in zip(gathered, model.parameters(), strict=True):
    torch.testing.assert_close(one, parameter.grad, rtol=1e-4, atol=1e-6 * float(parameter.grad.abs().max() + 1))
assert dist.get_world_size() == 2
open(f"{sys.argv[1]}/done{rank}", "w").close()
dist.destroy_process_group()
"""


@pytest.mark.sweep
def test_two_processes_average_their_gradients(tmp_path: Path) -> None:
    script = tmp_path / "train.py"
    script.write_text(DISTRIBUTED)
    launcher = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    finished = subprocess.run([*launcher, script, tmp_path], capture_output=True, text=True, timeout=900, check=False)
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert sorted(path.name for path in tmp_path.glob("done*")) == ["done0", "done1"]


def test_gradient_checkpointing_changes_no_gradient() -> None:
    model, x = convert(randomize(create_model("timm:resnet10t", num_classes=5))), torch.rand(2, 3, 64, 64)
    expected = gradients(model, x)
    model.set_grad_checkpointing()
    assert_all_close(gradients(model, x), expected)

    vgg = convert(create_model("dealias:vgg_small", in_chans=3).eval())
    expected = gradients(vgg, x)

    def forward(x: Tensor) -> Tensor:
        features = checkpoint_sequential(vgg.features, 5, x, use_reentrant=False)
        return vgg.classifier(vgg.avgpool(features).flatten(1))

    assert_all_close(gradients(vgg, x, forward), expected)


def check_onnx(model: nn.Module) -> None:
    dynamic = torch.export.Dim.DYNAMIC
    with torch.no_grad():
        program = torch.onnx.export(
            model,
            (torch.rand(2, 3, 64, 64),),
            dynamo=True,
            dynamic_shapes=({0: dynamic, 2: dynamic, 3: dynamic},),
            verbose=False,
        )
        session = onnxruntime.InferenceSession(program.model_proto.SerializeToString())
        name = session.get_inputs()[0].name
        for batch, height, width in ((2, 64, 64), (1, 97, 65), (3, 128, 224)):
            x = torch.rand(batch, 3, height, width)
            (logits,) = session.run(None, {name: np.ascontiguousarray(x)})
            assert_all_close([torch.from_numpy(logits)], [model(x)])


@pytest.mark.sweep
def test_onnx_runs_at_any_size() -> None:
    check_onnx(convert(small_resnet()))


EXPORTED = (None, "torchvision:shufflenet_v2_x0_5", "timm:tf_efficientnet_b0")


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning", "ignore::UserWarning")
@pytest.mark.parametrize("name", sweep.only(EXPORTED[:2], EXPORTED))
def test_the_torchscript_exporter_keeps_no_size(name: str | None) -> None:
    """A ResNet, a network that shuffles channels, and one whose layers compute SAME padding."""
    model = convert(small_resnet() if name is None else randomize(create_model(name, num_classes=5)))
    file, axes = io.BytesIO(), {"x": [0, 2, 3]}
    with torch.no_grad():
        torch.onnx.export(model, (torch.rand(2, 3, 64, 64),), file, dynamo=False, dynamic_axes=axes, input_names=["x"])
        session = onnxruntime.InferenceSession(file.getvalue())
        traced = torch.jit.trace(model, torch.rand(2, 3, 64, 64))
        for batch, height, width in ((2, 64, 64), (1, 96, 64), (3, 128, 224)):
            x = torch.rand(batch, 3, height, width)
            (logits,) = session.run(None, {"x": x.numpy()})
            expected = model(x)
            assert_all_close([torch.from_numpy(logits), traced(x)], [expected, expected])


@pytest.mark.sweep
@pytest.mark.parametrize(
    "name", ["torchvision:mobilenet_v2", "torchvision:densenet121", "torchvision:vgg11_bn", "timm:regnety_002"]
)
def test_onnx_of_other_families(name: str) -> None:
    check_onnx(convert(randomize(create_model(name, num_classes=5))))


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::FutureWarning", "ignore::UserWarning")
def test_quantisation_in_fx_graph_mode_keeps_the_blurs() -> None:
    model, x = convert(small_resnet()).eval(), torch.rand(4, 3, 64, 64)
    mapping = get_default_qconfig_mapping("x86")
    prepared = prepare_fx(copy.deepcopy(model), mapping, (x,))
    prepared(x)
    quantised = convert_fx(prepared)
    assert any(isinstance(module, torch.ao.nn.quantized.Conv2d) for module in quantised.modules())
    with torch.no_grad():
        expected = model(x)
        assert (quantised(x) - expected).norm() < 0.1 * expected.norm()


def shapes(outputs) -> list[tuple[int, ...]]:
    maps = outputs.values() if isinstance(outputs, dict) else outputs
    return [tuple(map_.shape) for map_ in maps]


def test_feature_extractors_of_torchvision_see_the_blurs() -> None:
    from torchvision.models.feature_extraction import create_feature_extractor

    baseline = small_resnet()
    model, x, layers = convert(baseline), torch.rand(1, 3, 97, 65), ["layer1", "layer2", "layer3", "layer4"]
    seen = {}
    for name in layers:
        model.get_submodule(name).register_forward_hook(
            lambda module, args, output, name=name: seen.__setitem__(name, output)
        )
    with torch.no_grad():
        model(x)
        expected = dict(seen)
        features = create_feature_extractor(model, layers)(x)
        assert_all_close([features[name] for name in layers], [expected[name] for name in layers])
        assert shapes(features) == shapes(create_feature_extractor(baseline, layers)(x))


@pytest.fixture
def nms(monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision's non-maximum suppression, which is compiled, where that does not load."""
    import torchvision

    def suppress(found: Tensor, scores: Tensor, iou_threshold: float) -> Tensor:
        overlaps, kept = torchvision.ops.box_iou(found, found) > iou_threshold, []
        for index in scores.argsort(descending=True).tolist():
            if not overlaps[index, kept].any():
                kept.append(index)
        return torch.tensor(kept, dtype=torch.int64)

    if not torchvision.extension._has_ops():
        monkeypatch.setattr("torchvision.ops.boxes.nms", suppress)


def pyramids() -> tuple[nn.Module, nn.Module]:
    """Feature pyramids on a plain and a converted network with the same weights."""
    from torchvision.models.detection.backbone_utils import _resnet_fpn_extractor

    baseline = small_resnet()
    plain, converted = (_resnet_fpn_extractor(network, 5) for network in (baseline, convert(baseline)))
    converted.load_state_dict(plain.state_dict(), strict=True)
    return plain, converted


def test_feature_pyramids_keep_their_sizes() -> None:
    plain, converted = pyramids()
    x = torch.rand(2, 3, 97, 129)
    expected, features = plain(x), converted(x)
    assert blurs(converted) == 7
    assert shapes(features) == shapes(expected)
    assert not torch.allclose(features["0"], expected["0"])


@pytest.mark.sweep  # without its compiled operators torchvision compiles RoIAlign on the spot, for half a minute
@pytest.mark.usefixtures("nms")
def test_faster_rcnn_on_a_converted_backbone() -> None:
    from torchvision.models.detection import FasterRCNN

    backbone, x = pyramids()[1], torch.rand(2, 3, 97, 129)
    few = {f"rpn_{when}_nms_top_n_{mode}": 20 for when in ("pre", "post") for mode in ("train", "test")}
    few |= {"box_batch_size_per_image": 16, "box_detections_per_img": 5}
    detector = FasterRCNN(backbone, num_classes=3, min_size=96, max_size=160, **few)
    target = {"boxes": torch.tensor([[10.0, 10.0, 60.0, 70.0]]), "labels": torch.tensor([1])}
    losses = detector.train()(list(x), [target, target])
    sum(losses.values()).backward()
    assert all(torch.isfinite(loss) for loss in losses.values())
    assert float(backbone.body.layer2[0].conv1.weight.grad.abs().max()) > 0
    with torch.no_grad():
        found = detector.eval()([x[0]])
    assert set(found[0]) == {"boxes", "labels", "scores"}


def test_deeplab_converts_whole() -> None:
    model = randomize(models.segmentation.deeplabv3_resnet50(weights=None, weights_backbone=None, num_classes=4))
    x = torch.rand(1, 3, 97, 65)
    converted = antialias(model, x)
    assert blurs(converted) == 3  # the others are dilated
    with torch.no_grad():
        assert shapes(converted.backbone(x)) == shapes(model.backbone(x))
        assert converted(x)["out"].shape == (1, 4, 97, 65)


class UNet(nn.Module):
    """A decoder with skip connections on timm's features."""

    def __init__(self, encoder: nn.Module) -> None:
        super().__init__()
        self.encoder = encoder
        channels = encoder.feature_info.channels()
        self.decoder = nn.ModuleList(
            nn.Conv2d(deep + skip, skip, 3, padding=1)
            for deep, skip in zip(channels[:0:-1], channels[-2::-1], strict=True)
        )

    def forward(self, x: Tensor) -> Tensor:
        *skips, y = self.encoder(x)
        for conv, skip in zip(self.decoder, skips[::-1], strict=True):
            y = conv(torch.cat([F.interpolate(y, skip.shape[2:]), skip], dim=1)).relu()
        return y


def test_unet_on_a_converted_encoder() -> None:
    baseline = randomize(create_model("timm:resnet10t", features_only=True))
    encoder, x = convert(baseline), torch.rand(1, 3, 97, 65)
    assert blurs(encoder) >= 4
    assert shapes(encoder(x)) == shapes(baseline(x))
    whole = UNet(baseline).eval()
    converted = convert(whole)
    assert type(converted) is UNet
    other = UNet(encoder).eval()
    other.load_state_dict(converted.state_dict(), strict=True)
    assert_all_close([other(x)], [converted(x)])
    gradients(other, x)
