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
    task: common.Task = "classes",
    filter: common.FilterText = "bin4",
    limit: common.Limit = None,
    workers: common.Workers = None,
    device: common.Device = "auto",
    resume: common.Resume = False,
    output: common.Output = Path("runs/audit"),
    seed: common.Seed = 0,
) -> None:
    """Measure how shift-sensitive a network is on your images, beside its anti-aliased copy."""
    from dealias.audit import AUDIT_METRICS, audited_models
    from dealias.evaluation import evaluate

    with show_progress() as on_progress:
        results = evaluate(
            audited_models(model, weights=weights, new_head=new_head, filter=filter),
            images,
            output,
            task=task,
            metrics=AUDIT_METRICS if task == "classes" else None,
            limit=limit,
            workers=workers,
            device=device,
            resume=resume,
            seed=seed,
            on_progress=on_progress,
            command="audit",
        )
    if results:  # torchrun's first process tells
        show_evaluation(output)
