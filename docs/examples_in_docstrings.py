"""For MkDocs: docstrings show their doctests as code."""

from typing import Any

from griffe import Extension, Object


class ExamplesAsCode(Extension):
    """Fences what begins with >>> up to the next empty line."""

    def on_package(self, *, pkg: Object, **kwargs: Any) -> None:
        """Change the docstrings of everything in a package once it is read."""
        if pkg.docstring is not None:
            pkg.docstring.value = fence(pkg.docstring.value)
        for member in pkg.members.values():
            if not member.is_alias:
                self.on_package(pkg=member)


def fence(text: str) -> str:
    """Put fences around the doctests of a docstring."""
    lines: list[str] = []
    inside = False
    for line in [*text.splitlines(), ""]:
        indent = line[: len(line) - len(line.lstrip())]
        if not inside and line.lstrip().startswith(">>>"):
            lines.append(f"{indent}```pycon")
            inside, margin = True, indent
        elif inside and not line.strip():
            lines.append(f"{margin}```")
            inside = False
        lines.append(line)
    return "\n".join(lines)
