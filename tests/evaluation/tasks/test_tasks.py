"""The registry: what the families name and what they say of it."""

from __future__ import annotations

import pytest

from dealias.errors import InputError
from dealias.evaluation.tasks import (
    DEFAULT_METRICS,
    FAMILIES,
    FIGURE_TEXTS,
    LABELLED,
    METRICS,
    PLOT_TEXTS,
    choose_metrics,
)


def test_metrics_come_in_the_order_of_their_families() -> None:
    assert list(METRICS) == [
        *("accuracy", "consistency", "circular", "fractional", "half-pixel", "third-pixel", "zero-fill", "diagonal"),
        *("one-pixel", "grid", "circular-grid", "half-pixel-grid"),
        *("stability", "equivariance", "imagenet-c", "imagenet-c-extra", "imagenet-p", "imagenet-p-extra"),
    ]
    assert DEFAULT_METRICS == ("accuracy", "consistency", "diagonal", "equivariance")
    labelled = ["accuracy", "grid", "circular-grid", "half-pixel-grid", "imagenet-c", "imagenet-c-extra"]
    assert list(LABELLED) == labelled


def test_no_name_is_given_twice() -> None:
    for table, names in (
        (METRICS, [name for family in FAMILIES for name in family.METRICS]),
        (FIGURE_TEXTS, [key for family in FAMILIES for key in family.FIGURES]),
        (PLOT_TEXTS, [key for family in FAMILIES for key in family.PLOTS]),
    ):
        assert list(table) == names


def test_choosing() -> None:
    assert choose_metrics(["all"]) == [name for name in METRICS if name != "stability"]
    assert choose_metrics(["all"], "detection") == choose_metrics(None, "images") == ["stability", "equivariance"]
    assert choose_metrics(["all"], "auto") == list(METRICS)
    assert choose_metrics(None) == list(DEFAULT_METRICS)
    assert choose_metrics(["grid", "accuracy", "grid"]) == ["accuracy", "grid"]
    for names in (["accuracy", "speed"], []):
        with pytest.raises(InputError, match="use all, or some of accuracy, consistency"):
            choose_metrics(names)


def test_notes_begin_like_sentences() -> None:
    assert FIGURE_TEXTS["top5_accuracy"].note.startswith("Top-5 accuracy: fraction of images")
    assert FIGURE_TEXTS["mce"].note.startswith("mCE: ")
    for text in FIGURE_TEXTS.values():
        assert text.definition.endswith(".")
