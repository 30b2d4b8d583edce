"""The second audited family: networks that do more than classify, built from the files of their own packages.

Weights are random, except for facenet-pytorch's. Every network comes with an input that it takes.
"""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

os.environ.setdefault("YOLO_CONFIG_DIR", str(Path("build").absolute()))  # which ultralytics writes to
os.environ.setdefault("HF_HUB_OFFLINE", "1")

import torch
from operators import import_torchvision
from torch import Tensor, nn

import_torchvision()

FEW = {f"rpn_{when}_nms_top_n_test": 60 for when in ("pre", "post")} | {
    "box_detections_per_img": 10,
    "box_score_thresh": 0.0,
}


@dataclass(frozen=True)
class Case:
    """A network of the family: how to build it, and the positional or keyword arguments that it is called with."""

    name: str
    network: Callable[[], nn.Module]
    example: Callable[[], Tensor | tuple[Any, ...] | dict[str, Any]]
    seed: int = 0

    def build(self) -> nn.Module:
        """The network, in evaluation mode."""
        torch.manual_seed(self.seed)
        with warnings.catch_warnings(action="ignore"):
            return randomize(self.network()).eval()

    def example_input(self) -> Tensor | tuple[Any, ...] | dict[str, Any]:
        """What to call it with, the same at every call."""
        torch.manual_seed(1)
        return self.example()


def randomize(model: nn.Module) -> nn.Module:
    """Give batch norms statistics and gains other than 0 and 1, so that every layer matters; trained ones stay."""
    for module in model.modules():
        trained = not isinstance(module, nn.modules.batchnorm._BatchNorm) or module.running_mean is None
        if trained or bool(module.running_mean.any()):
            continue
        nn.init.normal_(module.running_mean, std=0.1)
        nn.init.uniform_(module.running_var, 0.5, 1.5)
        if module.affine:
            nn.init.uniform_(module.weight, 0.5, 1.5)
    return model


def detector(name: str, **arguments: Any) -> Callable[[], nn.Module]:
    """A detector of torchvision for images of 96 to 128 pixels."""

    def build() -> nn.Module:
        from torchvision.models import detection

        build_detector: Any = getattr(detection, name)
        model: nn.Module = build_detector(weights=None, weights_backbone=None, num_classes=3, **arguments)
        return model

    return build


def one_image(height: int = 96, width: int = 128) -> tuple[list[Tensor]]:
    """What torchvision's detectors take."""
    return ([torch.rand(3, height, width)],)


def images(*shape: int) -> Callable[[], Tensor]:
    """A batch of this shape."""
    return lambda: torch.rand(*shape)


def yolo(config: str, *, fused: bool = False) -> Callable[[], nn.Module]:
    """A network of ultralytics by its configuration file, such as "yolo11n-seg"."""

    def build() -> nn.Module:
        from ultralytics.nn.tasks import DetectionModel, PoseModel, SegmentationModel

        task = {"seg": SegmentationModel, "pose": PoseModel}.get(config.partition("-")[2], DetectionModel)
        torch.manual_seed(0)
        model: Any = randomize(task(f"{config}.yaml", ch=3, verbose=False)).eval()
        return model.fuse(verbose=False) if fused else model

    return build


class Predictor(nn.Module):
    """What `YOLO.predict` makes of a network: it wraps and fuses it by itself."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Any:
        """What the network returns inside `YOLO.predict` for images (N, 3, height, width) in 0..1."""
        from ultralytics import YOLO

        seen: list[Any] = []
        interface: Any = YOLO(self.model.yaml_file)
        interface.model = self.model
        interface.predict(x, imgsz=tuple(x.shape[2:]), device="cpu", verbose=False, save=False)
        predictor = interface.predictor
        inference = predictor.inference
        predictor.inference = lambda *args, **kwargs: (seen.append(inference(*args, **kwargs)), seen[-1])[1]
        interface.predict(x, imgsz=tuple(x.shape[2:]), device="cpu", verbose=False, save=False)
        return seen[0]


def transformer(config_name: str, model_name: str, part: str = "", **settings: Any) -> Callable[[], nn.Module]:
    """A network of transformers from its configuration; `part` names the module wanted."""

    def build() -> nn.Module:
        import transformers

        config = getattr(transformers, config_name)(**settings)
        model: nn.Module = getattr(transformers, model_name)(config)
        return model.get_submodule(part) if part else model

    return build


def pixel_values(height: int, width: int) -> Callable[[], dict[str, Any]]:
    """What vision models of transformers take."""
    return lambda: {"pixel_values": torch.rand(1, 3, height, width)}


def segmenter(name: str, encoder: str) -> Callable[[], nn.Module]:
    """A network of segmentation_models_pytorch."""

    def build() -> nn.Module:
        import segmentation_models_pytorch

        model: nn.Module = getattr(segmentation_models_pytorch, name)(encoder, encoder_weights=None, classes=4)
        return model

    return build


def monai_network(name: str, **arguments: Any) -> Callable[[], nn.Module]:
    """A network of MONAI."""

    def build() -> nn.Module:
        from monai.networks import nets

        model: nn.Module = getattr(nets, name)(pretrained=False, **arguments)
        return model

    return build


def face_network(name: str) -> Callable[[], nn.Module]:
    """A network of facenet-pytorch, with its trained weights."""

    def build() -> nn.Module:
        from facenet_pytorch.models import mtcnn

        model: nn.Module = getattr(mtcnn, name)()
        return model

    return build


def portrait() -> tuple[Any]:
    """A real photograph with a face, uint8 (height, width, 3)."""
    from skimage.data import astronaut

    return (astronaut()[:256, 100:356].copy(),)


YOLO_NETWORKS = ("yolov3-tiny", "yolov8n", "yolov10n", "yolo11n", "yolo11n-seg", "yolo11n-pose")
SMALL = {"min_size": 96, "max_size": 128}
RT_DETR: dict[str, Any] = {
    "d_model": 64,
    "encoder_hidden_dim": 64,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "decoder_layers": 2,
    "decoder_attention_heads": 4,
    "encoder_attention_heads": 4,
    "decoder_in_channels": [64, 64, 64],
    "num_queries": 20,
    "num_feature_levels": 3,
}
DETR: dict[str, Any] = {
    "use_timm_backbone": False,
    "use_pretrained_backbone": False,
    "backbone": None,
    "encoder_layers": 1,
    "decoder_layers": 1,
    "d_model": 64,
    "encoder_ffn_dim": 128,
    "decoder_ffn_dim": 128,
    "encoder_attention_heads": 4,
    "decoder_attention_heads": 4,
    "num_queries": 10,
}


def small_resnet_config() -> Any:
    """The backbone of DETR, in small."""
    from transformers import ResNetConfig

    return ResNetConfig(
        embedding_size=16,
        hidden_sizes=[32, 64, 128, 256],
        depths=[1, 1, 1, 1],
        out_features=["stage2", "stage3", "stage4"],
    )


def small_detr() -> nn.Module:
    """DETR on a small ResNet."""
    from transformers import DetrConfig, DetrForObjectDetection

    config = small_resnet_config()
    config.out_features = ["stage4"]
    return DetrForObjectDetection(DetrConfig(**{**DETR, "backbone_config": config}))


def small_rt_detr() -> nn.Module:
    """RT-DETR on its own small ResNet."""
    from transformers import RTDetrConfig, RTDetrForObjectDetection, RTDetrResNetConfig

    backbone = RTDetrResNetConfig(
        embedding_size=32,
        hidden_sizes=[32, 64, 128, 256],
        depths=[2, 2, 2, 2],
        layer_type="basic",
        out_features=["stage2", "stage3", "stage4"],
    )
    config = RTDetrConfig(backbone_config=backbone, encoder_in_channels=[64, 128, 256], **RT_DETR)
    return RTDetrForObjectDetection(config)


def small_encodec() -> nn.Module:
    """EnCodec with codes that tell inputs apart."""
    model = transformer("EncodecConfig", "EncodecModel", **ENCODEC)()
    for name, values in model.named_buffers():
        if name.endswith("codebook.embed"):
            nn.init.normal_(values)
    return model


def masked_image() -> dict[str, Any]:
    """What DETR takes."""
    return {"pixel_values": torch.rand(1, 3, 96, 128), "pixel_mask": torch.ones(1, 96, 128, dtype=torch.int64)}


LEVIT: dict[str, Any] = {"image_size": 64, "hidden_sizes": [32, 48, 64], "num_attention_heads": [2, 3, 4]}
LEVIT |= {"key_dim": [8, 8, 8], "depths": [2, 2, 2]}
WHISPER = {"d_model": 64, "encoder_layers": 1, "decoder_layers": 1, "max_source_positions": 100}
WHISPER |= {"encoder_attention_heads": 4, "decoder_attention_heads": 4, "encoder_ffn_dim": 128, "decoder_ffn_dim": 128}
ENCODEC = {"num_filters": 8, "hidden_size": 32, "codebook_dim": 32, "codebook_size": 64}


def with_file(build: Callable[[], nn.Module], config: str) -> Callable[[], nn.Module]:
    """The network inside `YOLO.predict`."""

    def wrap() -> nn.Module:
        model: Any = build()
        model.yaml_file = f"{config}.yaml"
        model.names = {number: str(number) for number in range(80)}
        return model

    return wrap


CASES = [
    *(
        Case(f"torchvision:{name}, seed {seed}", detector(name, **SMALL, **FEW), one_image, seed)
        for name in ("fasterrcnn_resnet50_fpn", "fasterrcnn_mobilenet_v3_large_320_fpn")
        for seed in range(5)
    ),
    Case("torchvision:keypointrcnn_resnet50_fpn", detector("keypointrcnn_resnet50_fpn", **SMALL, **FEW), one_image),
    Case(
        "torchvision:retinanet_resnet50_fpn",
        detector("retinanet_resnet50_fpn", **SMALL, topk_candidates=50, score_thresh=0.0),
        one_image,
    ),
    Case("torchvision:ssd300_vgg16", detector("ssd300_vgg16", topk_candidates=20), one_image),
    Case("torchvision:ssdlite320_mobilenet_v3_large", detector("ssdlite320_mobilenet_v3_large"), one_image),
    *(Case(f"ultralytics:{name}", yolo(name), images(1, 3, 128, 96)) for name in YOLO_NETWORKS),
    *(Case(f"ultralytics:{name}, fused", yolo(name, fused=True), images(1, 3, 128, 96)) for name in YOLO_NETWORKS),
    *(
        Case(f"ultralytics:{name}, YOLO.predict", with_file(yolo(name), name), images(1, 3, 128, 96))
        for name in YOLO_NETWORKS
    ),
    Case(
        "transformers:MobileNetV1",
        transformer("MobileNetV1Config", "MobileNetV1Model", depth_multiplier=0.25),
        pixel_values(97, 128),
    ),
    Case(
        "transformers:MobileNetV2",
        transformer("MobileNetV2Config", "MobileNetV2Model", depth_multiplier=0.35),
        pixel_values(97, 128),
    ),
    Case("transformers:DETR", small_detr, masked_image),
    Case("transformers:RT-DETR", small_rt_detr, pixel_values(96, 128)),
    Case("transformers:LeViT", transformer("LevitConfig", "LevitModel", **LEVIT), pixel_values(64, 64)),
    Case(
        "transformers:Whisper's encoder",
        transformer("WhisperConfig", "WhisperModel", "encoder", **WHISPER),
        lambda: {"input_features": torch.rand(1, 80, 200)},
    ),
    Case("transformers:EnCodec", small_encodec, lambda: {"input_values": torch.randn(1, 1, 3200)}),
    Case(
        "transformers:EnCodec's encoder",
        transformer("EncodecConfig", "EncodecModel", "encoder", **ENCODEC),
        images(1, 1, 3200),
    ),
    Case("segmentation_models_pytorch:FPN", segmenter("FPN", "resnet18"), images(1, 3, 96, 128)),
    Case("segmentation_models_pytorch:PSPNet", segmenter("PSPNet", "resnet18"), images(1, 3, 96, 128)),
    Case(
        "monai:EfficientNetBN",
        monai_network("EfficientNetBN", model_name="efficientnet-b0", num_classes=4),
        images(1, 3, 96, 128),
    ),
    Case(
        "monai:FlexibleUNet",
        monai_network("FlexibleUNet", in_channels=3, out_channels=2, backbone="efficientnet-b0"),
        images(1, 3, 96, 128),
    ),
    Case("facenet_pytorch:PNet", face_network("PNet"), images(1, 3, 97, 128)),
    Case("facenet_pytorch:RNet", face_network("RNet"), images(2, 3, 24, 24)),
    Case("facenet_pytorch:ONet", face_network("ONet"), images(2, 3, 48, 48)),
    Case("facenet_pytorch:MTCNN", face_network("MTCNN"), portrait),
]
