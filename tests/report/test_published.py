"""The paper's tables: they agree with one another and with what the paper finds."""

from __future__ import annotations

from dealias.report.published import published_filters, published_networks


def test_the_tables_give_the_same_baselines() -> None:
    networks = {row["model"]: row for row in published_networks()}
    filters: dict[str, dict[str, dict[str, float]]] = {}
    for row in published_filters():
        filters.setdefault(row["model"], {})[row["filter"]] = row
    assert len(networks) == 23
    assert len(filters) == 9
    for model, rows in filters.items():
        assert [*rows] == ["none", "rect-2", "tri-3", "bin-4", "bin-5"]
        for name in ("accuracy", "consistency"):
            assert rows["none"][name] == networks[model][f"baseline_{name}"]


def test_anti_aliasing_makes_every_network_more_consistent_and_none_less_accurate() -> None:
    for row in published_networks():
        assert 50 < row["baseline_accuracy"] < row["antialiased_accuracy"] < 80
        assert 75 < row["baseline_consistency"] < row["antialiased_consistency"] < 95
