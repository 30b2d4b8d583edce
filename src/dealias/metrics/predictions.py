"""Predictions: the top-1 class of logits, and checks of what networks return."""

from __future__ import annotations

from torch import Tensor

from dealias.errors import InputError, InputTypeError


def top1(logits: Tensor) -> Tensor:
    """The most likely classes (...) of logits (..., classes); -1, which is no prediction, where a logit is NaN."""
    return logits.argmax(-1).masked_fill(logits.isnan().any(-1), -1)


def checked_classes(name: str, predictions: Tensor) -> Tensor:
    """The classes (N,) of float logits (N, classes), or integer classes (N,) as they are.

    Raises:
        InputError: another shape, or a logit is NaN.
        InputTypeError: not a tensor, or another dtype.
    """
    if not isinstance(predictions, Tensor):
        raise InputTypeError(f"{name} must be a torch.Tensor, got {type(predictions).__name__}")
    if predictions.ndim == 2 and predictions.is_floating_point() and predictions.shape[1]:
        classes = top1(predictions)
        if (classes < 0).any():
            raise InputError(f"{name} has NaN in row {int((classes < 0).nonzero()[0])}")
        return classes
    if predictions.ndim == 1 and not predictions.is_floating_point() and not predictions.is_complex():
        return predictions
    raise (InputError if predictions.ndim not in (1, 2) else InputTypeError)(
        f"{name} is {predictions.dtype} of shape {tuple(predictions.shape)}: "
        "use float logits (N, classes) or integer classes (N,)"
    )


def check_logits(output: object) -> Tensor:
    """The output of a classifier; `InputError` if it is not a tensor (N, classes)."""
    if not isinstance(output, Tensor) or output.ndim != 2:
        found = f"shape {tuple(output.shape)}" if isinstance(output, Tensor) else type(output).__name__
        raise InputError(f"the model's output is {found}: use a classifier with logits (N, classes), or name its task")
    return output


def correct_probabilities(logits: Tensor, classes: Tensor) -> Tensor:
    """P(correct) (N, views) of logits (N, views, classes); `InputError` if a class is out of range."""
    known = logits.shape[-1]
    if int(classes.min()) < 0 or int(classes.max()) >= known:
        raise InputError(
            f"targets from {int(classes.min())} to {int(classes.max())}: the model knows classes 0 to {known - 1}"
        )
    index = classes.to(logits.device).view(-1, 1, 1).expand(-1, logits.shape[1], 1)
    return logits.float().softmax(-1).gather(-1, index).squeeze(-1).cpu()
