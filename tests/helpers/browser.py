"""Pages in Chromium, where it is installed."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")


def browse(page: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Open a page without a window; the page and what it logged are in the output."""
    assert CHROMIUM is not None
    quiet = ["--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"]
    quiet += ["--disable-component-update", "--disable-sync", f"--user-data-dir={page.parent / 'profile'}"]
    return subprocess.run(
        [CHROMIUM, *quiet, "--enable-logging=stderr", *arguments, page.as_uri()],
        capture_output=True,
        text=True,
        timeout=900,
        check=True,
    )
