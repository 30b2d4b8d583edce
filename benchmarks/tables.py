"""What the benchmarks share: tables in Markdown, and sections of a page between marks."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path

from dealias.benchmark import Row, as_csv, columns_of
from dealias.files import prepare_output, write_whole


def as_markdown(rows: Sequence[Row], numbers: Sequence[str] = ()) -> str:
    """A table with the columns `numbers` aligned to the right; what a row lacks is an empty cell."""
    columns = columns_of(rows)
    lines = [" | ".join(columns), " | ".join("---:" if name in numbers else "---" for name in columns)]
    lines += [" | ".join(str(row.get(name, "")) for name in columns) for row in rows]
    return "\n".join(f"| {line} |" for line in lines)


def replace_section(page: Path, script: str, body: str) -> None:
    """Put `body` between the marks of `script` in the page."""
    begin, end = (f"<!-- {script}: {mark} -->" for mark in ("begin", "end"))
    text = page.read_text()
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise SystemExit(f"{page} lacks the marks {begin} and {end}")
    write_whole(page, f"{before}{begin}\n{body.strip()}\n{end}{after}")


def script_parser(description: str | None, packages: str | None = None) -> argparse.ArgumentParser:
    """The command line of a script that writes a page's tables, from a folder of packages if `packages` says which."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    if packages is not None:
        parser.add_argument("packages", type=Path, help=f"folder with {packages}")
    add_markdown(parser)
    return parser


def add_outputs(parser: argparse.ArgumentParser) -> None:
    """The options that say where to write."""
    parser.add_argument("--output", type=Path, help="folder for tables as CSV, and plots")
    add_markdown(parser)


def add_markdown(parser: argparse.ArgumentParser) -> None:
    """The option that names the page to write into."""
    parser.add_argument("--markdown", type=Path, help="page whose sections between this script's marks are replaced")


def write_csv(folder: Path, name: str, rows: Sequence[Row]) -> None:
    """Write the rows to `name` in the folder, and print its path."""
    path = prepare_output(folder) / name
    write_whole(path, as_csv(rows))
    print(path)
