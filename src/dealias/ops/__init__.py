"""One function for each operation; each picks the backend for its input.

Callers (`dealias.functional`) hand over checked arguments and batched input. Backends other than the
reference cover part of the arguments; whatever they do not cover takes the reference path.
"""

from __future__ import annotations

from dealias.ops.reference import blur_pool, match_layout, max_blur_pool, relu_blur_pool

__all__ = ["blur_pool", "match_layout", "max_blur_pool", "relu_blur_pool"]
