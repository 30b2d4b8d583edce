"""`dealias audit`: a network beside its anti-aliased copy."""

from __future__ import annotations

from pathlib import Path

from dealias.cli.common import (
    ConfiguredModel,
    Device,
    FilterText,
    Limit,
    NewHead,
    Output,
    Resume,
    Seed,
    Weights,
    Workers,
    app,
    show_progress,
)
from dealias.cli.evaluate import Images, show_evaluation


@app.command("audit")
def audit_network(
    model: ConfiguredModel,
    images: Images,
    weights: Weights = None,
    new_head: NewHead = False,
    filter: FilterText = "bin4",
    limit: Limit = None,
    workers: Workers = None,
    device: Device = "auto",
    resume: Resume = False,
    output: Output = Path("runs/audit"),
    seed: Seed = 0,
) -> None:
    """Measure how shift-sensitive a network is on your images, beside its anti-aliased copy."""
    from dealias.audit import run_audit

    with show_progress() as on_progress:
        results = run_audit(
            model,
            images,
            output,
            weights=weights,
            new_head=new_head,
            filter=filter,
            limit=limit,
            seed=seed,
            workers=workers,
            device=device,
            resume=resume,
            on_progress=on_progress,
        )
    if results:  # torchrun's first process tells
        show_evaluation(output)
