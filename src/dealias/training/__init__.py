"""Training: the loop."""

from dealias.training.loop import fit

__all__ = ["fit"]
