"""Repair: an anti-aliased copy of a trained network learns from unlabelled images to agree with the original."""

from dealias.repair.options import RepairOptions
from dealias.repair.run import RepairResult, repair

__all__ = ["RepairOptions", "RepairResult", "repair"]
