"""What anti-aliasing costs where networks are deployed, on the CPU: docs/deploy.md.

    make deploy

ResNet-50, MobileNetV2 and YOLO11n, random weights, one image: in PyTorch (eager, torch.compile), ONNX Runtime and
OpenVINO. Every round runs all forms of a network one after the other. A ratio is the median over the rounds of the
ratios to the plain network within a round. The clock is the CPU time of the process on one thread, and the time of day
on more. Rows that were measured before are taken from build/deploy.jsonl.
"""

from __future__ import annotations

import argparse
import io
import json
import os
import statistics
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property, partial
from pathlib import Path
from typing import Any

import torch
from family import randomize, yolo
from tables import add_markdown, as_markdown, replace_section
from torch import Tensor, nn

from dealias import antialias
from dealias.benchmark import processor
from dealias.models import create_model
from dealias.ops import reference

PLAIN, DENSE, BEFORE, ONE, TWO, ZEROS = "plain", "dense", "before", "one convolution", "two passes", "zeros"
COLUMNS = {DENSE: "no filter", BEFORE: "before", ONE: "bin4", ZEROS: "zeros", TWO: "two passes"}
RUNTIMES = ("eager", "compile", "onnxruntime", "openvino")

Call = Callable[[], object]


class First(nn.Module):
    """The first of the tensors that a detector returns."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, x: Tensor) -> Tensor:
        """Run the detector."""
        found = self.network(x)
        return found if isinstance(found, Tensor) else found[0]


def _torchvision(name: str) -> nn.Module:
    return randomize(create_model(f"torchvision:{name}")).eval()


NETWORKS: dict[str, tuple[Callable[[], nn.Module], int]] = {
    "ResNet-50": (partial(_torchvision, "resnet50"), 224),
    "MobileNetV2": (partial(_torchvision, "mobilenet_v2"), 224),
    "YOLO11n": (lambda: First(yolo("yolo11n")()), 320),
}


@contextmanager
def written_as(form: str) -> Iterator[None]:
    """Within it exported blurs are one convolution, or two passes along an axis each."""
    kept = reference._MOST_DENSE_TAPS
    if form == TWO:
        reference._MOST_DENSE_TAPS = 1
    try:
        yield
    finally:
        reference._MOST_DENSE_TAPS = kept


def exported(network: nn.Module, form: str, images: Tensor) -> bytes:
    """The network as an ONNX file."""
    buffer = io.BytesIO()
    with written_as(form), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the exporter, on the network
        program = torch.onnx.export(network, (images,), dynamo=True, input_names=["x"], verbose=False)
    program.save(buffer)
    return buffer.getvalue()


class Forms:
    """A network plain, with its convolutions dense and no filter, and anti-aliased; each is exported once."""

    def __init__(self, network: nn.Module, images: Tensor) -> None:
        self._images = images
        blurred = antialias(network, images)
        self._networks = {
            PLAIN: network,
            DENSE: antialias(network, images, filter="none"),
            BEFORE: antialias(network, images, placement="before"),
            ONE: blurred,
            TWO: blurred,
            ZEROS: antialias(network, images, padding_mode="zeros"),
        }

    @cached_property
    def _files(self) -> dict[str, bytes]:
        return {form: exported(network, form, self._images) for form, network in self._networks.items()}

    def calls(self, runtime: str, threads: int) -> dict[str, Call]:
        """How to run each form in a runtime."""
        images = self._images
        if runtime in ("onnxruntime", "openvino"):
            start = _in_onnxruntime if runtime == "onnxruntime" else _in_openvino
            return {form: start(file, images, threads) for form, file in self._files.items()}
        networks = {form: network for form, network in self._networks.items() if form != TWO}  # the same kernels
        if runtime == "compile":
            torch._dynamo.reset()
            networks = {form: torch.compile(network) for form, network in networks.items()}
        return {form: partial(_run, network, images) for form, network in networks.items()}


def _run(network: Callable[[Tensor], object], images: Tensor) -> object:
    with torch.no_grad():
        return network(images)


def _in_onnxruntime(file: bytes, images: Tensor, threads: int) -> Call:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(file, options, providers=["CPUExecutionProvider"])
    return partial(session.run, None, {"x": images.numpy()})


def _in_openvino(file: bytes, images: Tensor, threads: int) -> Call:
    import openvino

    core = openvino.Core()
    settings = {"INFERENCE_NUM_THREADS": threads, "INFERENCE_PRECISION_HINT": "f32", "PERFORMANCE_HINT": "LATENCY"}
    compiled = core.compile_model(core.read_model(io.BytesIO(file)), "CPU", settings)
    request = compiled.create_infer_request()
    return partial(request.infer, {"x": images.numpy()})


def seconds(call: Call, threads: int) -> float:
    """How long a call takes."""
    clock = time.process_time if threads == 1 else time.perf_counter
    start = clock()
    call()
    return clock() - start


def compare(calls: dict[str, Call], threads: int, rounds: int) -> dict[str, float]:
    """The milliseconds of the plain network, and the ratio of each form to it."""
    for call in calls.values():
        call()
        call()
    times = [{form: seconds(call, threads) for form, call in calls.items()} for _ in range(rounds)]
    ratios = {form: statistics.median(one[form] / one[PLAIN] for one in times) for form in calls}
    return {**ratios, PLAIN: 1000 * statistics.median(one[PLAIN] for one in times)}


def main() -> None:
    """Measure, and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--networks", nargs="+", choices=[*NETWORKS], default=[*NETWORKS])
    parser.add_argument("--runtimes", nargs="+", choices=RUNTIMES, default=[*RUNTIMES])
    parser.add_argument("--threads", nargs="+", type=int, default=[1, 2])
    parser.add_argument("--rounds", type=int, default=9)
    parser.add_argument("--records", type=Path, default=Path("build/deploy.jsonl"), help="what was measured before")
    add_markdown(parser)
    asked = parser.parse_args()
    asked.records.parent.mkdir(parents=True, exist_ok=True)
    asked.records.touch()
    rows: list[dict[str, Any]] = [json.loads(line) for line in asked.records.read_text().splitlines()]
    known = {(row["network"], row["runtime"], row["threads"]) for row in rows}
    for name in asked.networks:
        build, side = NETWORKS[name]
        torch.manual_seed(0)
        images = torch.rand(1, 3, side, side)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # sites that stay as they are
            forms = Forms(build(), images)
        for runtime in asked.runtimes:
            for threads in asked.threads:
                if (name, runtime, threads) in known:
                    continue
                torch.set_num_threads(threads)
                found = compare(forms.calls(runtime, threads), threads, asked.rounds)
                row: dict[str, Any] = {
                    "network": name,
                    "runtime": runtime,
                    "threads": threads,
                    "plain, ms": f"{found[PLAIN]:.1f}",
                }
                row |= {title: f"{found[form]:.2f}" for form, title in COLUMNS.items() if form in found}
                rows.append(row)
                with asked.records.open("a") as file:
                    print(json.dumps(row), file=file)
                print(row, flush=True)
    order = [*NETWORKS], [*RUNTIMES]
    rows.sort(key=lambda row: (order[0].index(row["network"]), order[1].index(row["runtime"]), row["threads"]))
    text = (
        f"{processor()}, {os.cpu_count()} cores; one image; times relative to the plain network's, medians over rounds."
    )
    text += "\n\n" + as_markdown(rows, ("threads", "plain, ms", *COLUMNS.values()))
    print(text)
    if asked.markdown is not None:
        replace_section(asked.markdown, "deploy.py", text)


if __name__ == "__main__":
    main()
