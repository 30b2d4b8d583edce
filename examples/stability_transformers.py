"""How stable networks of transformers are under shifts: a segmentation and an embedding; random weights, random images.

pip install transformers
python examples/stability_transformers.py
"""

import torch
from transformers import SegformerConfig, SegformerForSemanticSegmentation, ViTConfig, ViTModel

import dealias


def main() -> None:
    """Measure SegFormer, whose maps have a quarter of the resolution, and the pooled output of a ViT."""
    torch.manual_seed(0)
    images = torch.nn.functional.interpolate(torch.rand(4, 3, 28, 28), (224, 224), mode="bicubic")
    # SegformerForSemanticSegmentation.from_pretrained(...) is trained
    print(dealias.measure_stability(SegformerForSemanticSegmentation(SegformerConfig(num_labels=8)), images))
    small = ViTConfig(hidden_size=64, num_hidden_layers=2, num_attention_heads=4, intermediate_size=128)
    print(dealias.measure_stability(ViTModel(small), images))


if __name__ == "__main__":
    main()
