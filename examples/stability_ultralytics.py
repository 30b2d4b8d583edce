"""How stable ultralytics' YOLO is under shifts: the network alone, and its pipeline; random weights, random images.

pip install ultralytics
python examples/stability_ultralytics.py
"""

import numpy as np
import torch
from ultralytics import YOLO

import dealias


def main() -> None:
    """Measure the network on float images, then `predict` on uint8 pictures."""
    torch.manual_seed(0)
    yolo = YOLO("yolo11n.yaml")  # YOLO("yolo11n.pt") is trained
    images = torch.nn.functional.interpolate(torch.rand(2, 3, 32, 32), (256, 256), mode="bicubic").clamp(0, 1)
    # random weights give small scores; leave least_score out for a trained network
    print(dealias.measure_stability(yolo.model, images, least_score=1e-4))

    def predict(picture: np.ndarray) -> object:
        """YOLO takes arrays as BGR."""
        return yolo.predict(picture[..., ::-1].copy(), conf=1e-4, verbose=False)

    print(dealias.measure_stability(yolo, (images * 255).byte(), predict=predict))


if __name__ == "__main__":
    main()
