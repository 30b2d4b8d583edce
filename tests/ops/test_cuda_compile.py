"""The Triton kernels compile for GPUs without one; values stay in registers, and rows are loaded 16 bytes at a time.

Run as a program, in a process without Triton's interpreter, this file prints what the compiler made of each kernel.
"""

import json
import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

TAPS = (0.125, 0.375, 0.375, 0.125)
OPERATIONS = ("blur", "relu_blur", "max_blur")


def print_compiled(dtype: str, capability: int) -> None:
    """Compile what one training step of a 56-pixel map launches, in both layouts, and print it as JSON."""
    import torch
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.runtime import driver

    class NoDevice:
        """Says what to compile for; nothing is launched."""

        def get_current_target(self) -> GPUTarget:
            return GPUTarget("cuda", capability, 32)

        def get_current_device(self) -> int:
            return 0

        def get_current_stream(self, device: int = 0) -> int:
            return 0

        def get_active_torch_device(self) -> torch.device:
            return torch.device("cpu")

    driver.set_active(NoDevice())
    from dealias.ops import cuda
    from dealias.ops.arguments import RELU, Blur, First, Pool

    tool = Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump"
    found: dict[str, dict[str, float]] = {}
    name = ""

    class Compiled:
        def __init__(self, kernel: Any) -> None:
            self.kernel = kernel

        def __getitem__(self, grid: tuple[int]) -> Any:
            def compile_only(*args: Any, **options: Any) -> None:
                start = sum(os.times()[:4])  # of the CPU, with that of ptxas
                result = self.kernel.warmup(*args, grid=grid, **options)
                seconds = sum(os.times()[:4]) - start
                binary = Path(os.environ["TRITON_CACHE_DIR"]) / "kernel.cubin"
                binary.write_bytes(result.asm["cubin"])
                usage = subprocess.run(
                    [tool, "--dump-resource-usage", binary], capture_output=True, text=True, check=True
                ).stdout
                counts = re.search(r"REG:(\d+) STACK:(\d+)", usage)
                assert counts is not None
                ptx = result.asm["ptx"]
                found[name] = {
                    "seconds to compile": round(seconds, 2),
                    "registers": int(counts[1]),
                    "stack bytes": int(counts[2]),
                    "shared bytes": result.metadata.shared,
                    "16-byte loads": len(re.findall(r"ld\.global\S*\.v4\.b32", ptx)),
                }

            return compile_only

    for kernel in ("blur_pool", "blur_backward", "max_backward"):
        setattr(cuda, kernel, Compiled(getattr(cuda, kernel)))
    cuda._packs = lambda device: True
    blur = Blur((TAPS, TAPS), (2, 2), "reflect")
    before_blur: tuple[First, ...] = (None, RELU, Pool((2, 2), (1, 1), (0, 0), (0, 0), False))
    for layout in (torch.contiguous_format, torch.channels_last):
        x = torch.zeros(2, 64, 56, 56, dtype=getattr(torch, dtype)).contiguous(memory_format=layout)
        grad = x[..., ::2, ::2].contiguous(memory_format=layout)
        for operation, first in zip(OPERATIONS, before_blur, strict=True):
            name = f"{operation}, {layout}"
            cuda.forward(x, blur, first)
            name = f"{operation} backward, {layout}"
            given = None if first is None else x
            cuda.backward(grad, given, blur, first, x.shape, layout == torch.channels_last)
    print(json.dumps(found))


@pytest.mark.sweep
@pytest.mark.parametrize(("dtype", "capability"), [("bfloat16", 90), ("float32", 90), ("float16", 80)])
def test_kernels_compile_and_stay_in_registers(tmp_path: Path, dtype: str, capability: int) -> None:
    triton = pytest.importorskip(
        "triton", reason="Triton is not installed: only the GPU kernels need it, and it exists for Linux alone"
    )
    if not (Path(triton.__file__).parent / "backends" / "nvidia" / "bin" / "cuobjdump").exists():
        pytest.skip("this build of Triton has no CUDA tools (ROCm's has none): nothing counts the registers")
    environment = {key: value for key, value in os.environ.items() if key != "TRITON_INTERPRET"}
    environment |= {"TRITON_CACHE_DIR": str(tmp_path)}
    output = subprocess.run(
        [sys.executable, __file__, dtype, str(capability)], env=environment, capture_output=True, text=True, check=True
    ).stdout
    found = json.loads(output)
    assert len(found) == 2 * 2 * len(OPERATIONS)
    for name, counts in found.items():
        assert counts["stack bytes"] == counts["shared bytes"] == 0, (name, counts)
        if not name.endswith("channels_last") and name.split(",")[0] != "blur backward":
            assert counts["16-byte loads"] > 0, (name, counts)


if __name__ == "__main__":
    print_compiled(sys.argv[1], int(sys.argv[2]))
