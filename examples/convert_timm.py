"""Look at the downsampling sites of a network of timm first, then anti-alias it, its stem too.

python examples/convert_timm.py
"""

import torch

import dealias
from dealias.models import create_model

baseline = create_model("timm:tf_efficientnet_lite0").eval()
image = torch.rand(1, 3, 224, 224)

for site in dealias.sites(baseline, image):
    print(f"{site.kind:8} {site.path:22} {site.input_size} -> {site.output_size}: {site.action or site.reason}")

converted = dealias.antialias(baseline, image, filter="tri3", stem=True, strict=True)
with torch.no_grad():
    print(f"features {tuple(baseline.forward_features(image).shape)} {tuple(converted.forward_features(image).shape)}")
