"""`dealias info`: print versions, devices and backends."""

from __future__ import annotations

from rich.console import Console
from rich.table import Table

from dealias.cli.common import app


@app.command("info")
def print_info() -> None:
    """Print the versions, the devices and the active backends of the operations."""
    import platform

    import torch

    import dealias
    from dealias import ops

    table = Table(show_header=False, box=None)
    table.add_row("dealias", dealias.__version__)
    table.add_row("python", platform.python_version())
    table.add_row("torch", torch.__version__)
    table.add_row("threads", str(torch.get_num_threads()))
    device = torch.cuda.get_device_name() if torch.cuda.is_available() else "none"
    table.add_row("CUDA device", device)
    for name, state in ops.backends().items():
        table.add_row(f"backend {name}", state)
    Console().print(table)
