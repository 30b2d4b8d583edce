from pathlib import Path

import numpy as np
import pytest
from PIL import Image


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten classes of two small pictures each: blobs of colour."""
    root = tmp_path_factory.mktemp("pictures")
    draw = np.random.default_rng(0)
    for label in range(10):
        (root / f"class {label}").mkdir()
        for copy in range(2):
            coarse = Image.fromarray(draw.integers(0, 256, (6, 7, 3), dtype=np.uint8))
            coarse.resize((56, 48), Image.Resampling.BICUBIC).save(root / f"class {label}" / f"{copy}.png")
    return root
