"""For MkDocs: docstrings show their doctests as code."""

from typing import Any

from griffe import Extension, Object


class ExamplesAsCode(Extension):
    """Fences what begins with >>> up to the next empty line."""

    def on_object(self, *, obj: Object, **kwargs: Any) -> None:
        """Change the docstring of each object as it is read."""
        if obj.docstring is not None:
            obj.docstring.value = fence(obj.docstring.value)


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
