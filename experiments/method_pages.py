"""The tables of docs/invariance.md, from the records of experiments/methods.py."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from statistics import mean, stdev

from method_networks import METHODS, NETWORKS
from records import Record

from dealias.files import write_whole
from dealias.metrics import wilson_interval

PAGE = Path(__file__).parents[1] / "docs" / "invariance.md"
KINDS = ("circular", "half", "third", "zero-fill", "crop")
HEADS = ("circular", "half a pixel", "a third", "zero-fill", "crop")


def write_page(records: Mapping[str, Record]) -> None:
    """Write the tables between the marks of the page."""
    page = PAGE.read_text(encoding="utf-8")
    for data in ("digits", "fashion", "cost"):
        begin, end = f"<!-- methods, {data} -->\n", f"<!-- end of methods, {data} -->"
        before, _, rest = page.partition(begin)
        _, _, after = rest.partition(end)
        of_data = [record for record in records.values() if record["data"] == data]
        page = f"{before}{begin}{costs(of_data) if data == 'cost' else table(of_data)}\n{end}{after}"
    write_whole(PAGE, page)


def table(records: Sequence[Record]) -> str:
    """The records in Markdown, a row for each network, method and way of training.

    Means over seeds, in percent; of each kind of shift the consistency and, behind the stroke, the accuracy under the
    worst of its shifts. Accuracy has its interval over all images, and its difference from that of the plain network.
    """
    groups: dict[tuple[str, bool, str], list[Record]] = {}
    for record in records:
        groups.setdefault((record["network"], record["augment"], record["method"]), []).append(record)
    heads = ["network", "images", "method", "accuracy", "to plain", *HEADS, "seeds"]
    lines = [f"| {' | '.join(heads)} |", "| --- " * len(heads) + "|"]
    for network in NETWORKS:
        for augment in (False, True):
            plain = groups.get((network, augment, "none"), [])
            for method, shown in METHODS.items():
                found = groups.get((network, augment, method), [])
                if found:
                    names = [network, "shifted" if augment else "as they are", shown]
                    cells = [*names, *_accuracy(found, plain), *(_kind(found, kind) for kind in KINDS), str(len(found))]
                    lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def costs(records: Sequence[Record]) -> str:
    """What a step costs: a row for each network and method."""
    lines = ["| network | method | ms a step | to plain | MiB |", "| --- " * 5 + "|"]
    for record in records:
        for method, ratio in record["ratio"].items():
            ms, mib = record["ms"][method], record["mib"][method]
            lines.append(f"| {record['network']} | {METHODS[method]} | {ms:.0f} | {ratio:.2f} | {mib:.0f} |")
    machines = dict.fromkeys(record["machine"] for record in records)
    return "\n".join([*machines, "", *lines])


def _accuracy(found: Sequence[Record], plain: Sequence[Record]) -> tuple[str, str]:
    """The mean accuracy with its interval, and the mean difference by seed with its standard deviation."""
    total = sum(one["images"] for one in found)
    low, high = wilson_interval(round(sum(one["accuracy"] * one["images"] for one in found)), total)
    of_plain = {one["seed"]: one["accuracy"] for one in plain}
    gains = [100 * (one["accuracy"] - of_plain[one["seed"]]) for one in found if one["seed"] in of_plain]
    shown = f"{100 * mean(one['accuracy'] for one in found):.1f} ({100 * low:.1f} to {100 * high:.1f})"
    if len(gains) < 2 or found[0]["method"] == "none":
        return shown, ""
    return shown, f"{mean(gains):+.1f} (sd {stdev(gains):.1f})"


def _kind(found: Sequence[Record], kind: str) -> str:
    consistency = 100 * mean(one[kind]["consistency"] for one in found)
    worst = 100 * mean(one[kind]["adversarial_accuracy"] for one in found)
    shown = f"{consistency:.1f}" if consistency < 99.9 else f"{min(consistency, 99.99):.2f}"
    if all(one[kind]["consistency"] == 1 for one in found):
        shown = "100"
    return f"{shown} / {worst:.1f}"
