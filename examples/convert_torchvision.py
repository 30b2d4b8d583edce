"""Anti-alias a network of torchvision; its checkpoint loads as before.

python examples/convert_torchvision.py
"""

import rich
import torch

from dealias.convert import antialias_with_report
from dealias.models import create_model

baseline = create_model("torchvision:resnet18")  # or torchvision.models.resnet18(weights="DEFAULT")
image = torch.rand(1, 3, 224, 224)

converted, report = antialias_with_report(baseline, image)
rich.print(report)

converted.load_state_dict(baseline.state_dict(), strict=True)
print(f"logits {tuple(converted.eval()(image).shape)}")
