"""`dealias info`: print versions, devices and backends."""

from __future__ import annotations

from dealias.cli.common import app, show_table


@app.command("info")
def print_info() -> None:
    """Print the versions, the devices and the active backends of the operations."""
    import platform

    import torch

    import dealias
    from dealias import ops

    rows = {
        "dealias": dealias.__version__,
        "python": platform.python_version(),
        "torch": str(torch.__version__),
        "threads": str(torch.get_num_threads()),
        "CUDA device": torch.cuda.get_device_name() if torch.cuda.is_available() else "none",
        **{f"backend {name}": state for name, state in ops.backends().items()},
    }
    show_table((), rows.items(), show_header=False, box=None)
