"""Time and memory of `dealias flicker` on a video of 640x480, through networks of no cost.

    python benchmarks/flicker.py [--frames 250 1000 4000] [--markdown docs/my-model-flickers.md]

The video slides over a photograph that scikit-image brings. Two networks return eight boxes that jitter, whatever they
see, so that what is measured is decoding, normalising, matching and drawing. Each length runs in a process of its own,
on one thread. The times are processor time, which a busy machine stretches less; `start-up` is the import of packages;
`peak` is the process's largest memory.
"""

from __future__ import annotations

import multiprocessing
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
from tables import as_markdown, replace_section, script_parser

HEIGHT, WIDTH, BOXES = 480, 640, 8


def write_video(path: Path, frames: int) -> None:
    """A window that slides over a photograph, in H.264."""
    import av
    from PIL import Image
    from skimage import data

    photo = np.array(Image.fromarray(data.astronaut()).resize((1400, 1050)))
    with av.open(str(path), "w") as file:
        stream: Any = file.add_stream("libx264", rate=30)
        stream.width, stream.height, stream.pix_fmt = WIDTH, HEIGHT, "yuv420p"
        for number in range(frames):
            top, left = int(200 + 150 * np.sin(number / 50)), int(300 + 250 * np.cos(number / 70))
            pixels = np.ascontiguousarray(photo[top : top + HEIGHT, left : left + WIDTH])
            file.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        file.mux(stream.encode())


def measure(video: Path, output: Path, found: Any) -> None:
    """Put the seconds of each step, the peak memory (MiB) and the size of the page (MB) into the queue `found`."""
    started = time.process_time()
    import torch
    from torch import Tensor, nn

    from dealias.data import Video
    from dealias.evaluation.clips import VideoClip
    from dealias.evaluation.flicker import FILES, measure_flicker
    from dealias.evaluation.network import Network
    from dealias.files import OutputFolder
    from dealias.models import ModelSpec, Preprocessing
    from dealias.report.answers import draw_answer
    from dealias.report.flicker import PAGE, write_flicker_report

    class Boxes(nn.Module):
        def __init__(self, seed: int) -> None:
            super().__init__()
            self.random = torch.Generator().manual_seed(seed)

        def forward(self, images: Tensor) -> list[dict[str, Tensor]]:
            corners = 40 + 50 * torch.arange(float(BOXES))[:, None].expand(BOXES, 4)
            boxes = corners + torch.tensor([0.0, 0.0, 70.0, 90.0])
            scores, labels = torch.full((BOXES,), 0.9), torch.arange(BOXES) % 3
            return [
                {"boxes": boxes + 4 * torch.rand(BOXES, 4, generator=self.random), "scores": scores, "labels": labels}
                for _ in images
            ]

    torch.set_num_threads(1)
    plain = Preprocessing(HEIGHT, HEIGHT, HEIGHT, 3, "bilinear", (0.0,) * 3, (1.0,) * 3)
    networks = [
        Network(ModelSpec("a:b", label=f"network {seed}"), Boxes(seed), plain, torch.device("cpu"), 8, "detection")
        for seed in range(2)
    ]
    seconds = [time.process_time() - started]
    clips = [VideoClip(Video(video))]
    with OutputFolder(output, "flicker", writes=(*FILES, PAGE)) as folder:
        for step in (
            lambda: measure_flicker(networks, clips, folder, {}, draw=draw_answer),
            lambda: write_flicker_report(folder, clips),
        ):
            started = time.process_time()
            step()
            seconds.append(time.process_time() - started)
        size = (folder.path / PAGE).stat().st_size / 1e6
    found.put((seconds, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024, size))


def main() -> None:
    """Print a row for each length."""
    parser = script_parser(__doc__)
    parser.add_argument("--frames", type=int, nargs="+", default=[250, 1000, 4000])
    asked = parser.parse_args()
    rows = []
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as temporary:
        for frames in asked.frames:
            video = Path(temporary) / f"{frames}.mp4"
            write_video(video, frames)
            found = context.Queue()
            process = context.Process(target=measure, args=(video, Path(temporary) / str(frames), found))
            process.start()
            (start, measured, drawn), peak, size = found.get()
            process.join()
            rows.append(
                {
                    "frames": frames,
                    "start-up": f"{start:.1f} s",
                    "decode, match": f"{measured:.1f} s",
                    "draw the page": f"{drawn:.1f} s",
                    "peak": f"{peak:.0f} MiB",
                    "page": f"{size:.1f} MB",
                }
            )
    print(as_markdown(rows))
    if asked.markdown is not None:
        replace_section(asked.markdown, "flicker.py", as_markdown(rows))


if __name__ == "__main__":
    main()
