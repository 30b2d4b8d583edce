"""Export an anti-aliased network to ONNX with any batch and image size, and run it in onnxruntime.

python examples/onnx_export.py resnet18.onnx
"""

import sys

import onnxruntime
import torch

from dealias.models import create_model


def main(path: str) -> None:
    """Export, run at three sizes and print the largest difference from PyTorch."""
    network = create_model("torchvision:resnet18", antialias=True).eval()
    dynamic = torch.export.Dim.DYNAMIC
    program = torch.onnx.export(
        network,
        (torch.rand(2, 3, 224, 224),),
        dynamo=True,
        dynamic_shapes=({0: dynamic, 2: dynamic, 3: dynamic},),
    )
    program.save(path)
    session = onnxruntime.InferenceSession(path)
    for shape in ((1, 3, 224, 224), (3, 3, 97, 65), (1, 3, 256, 192)):
        images = torch.rand(shape)
        (logits,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        with torch.no_grad():
            difference = (network(images) - torch.from_numpy(logits)).abs().max()
        print(f"{shape}: largest difference {difference:.1e}")


if __name__ == "__main__":
    main(sys.argv[1] if len(sys.argv) > 1 else "resnet18.onnx")
