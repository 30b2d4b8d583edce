"""`dealias audit`: a network beside its anti-aliased copy."""

from __future__ import annotations

from pathlib import Path

from dealias.cli import common
from dealias.cli.common import app, show_progress
from dealias.cli.evaluate import Images, show_evaluation


@app.command("audit")
def audit_network(
    model: common.ConfiguredModel,
    images: Images,
    weights: common.Weights = None,
    new_head: common.NewHead = False,
    filter: common.FilterText = "bin4",
    limit: common.Limit = None,
    workers: common.Workers = None,
    device: common.Device = "auto",
    resume: common.Resume = False,
    output: common.Output = Path("runs/audit"),
    seed: common.Seed = 0,
) -> None:
    """Measure how shift-sensitive a network is on your images, beside its anti-aliased copy."""
    options = {**locals()}  # the arguments of `run_audit`
    from dealias.audit import run_audit

    with show_progress() as on_progress:
        results = run_audit(**options, on_progress=on_progress)
    if results:  # torchrun's first process tells
        show_evaluation(output)
