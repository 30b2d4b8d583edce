"""Pages in Chromium, where it is installed."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
_DRIVER = """
<script>
const problems = [];
addEventListener("error", (event) => problems.push(String(event.message || event.target)), true);
addEventListener("load", () => {
%s
  const told = document.createElement("pre");
  told.id = "told";
  told.textContent = JSON.stringify({...found, wide: document.documentElement.scrollWidth > innerWidth, problems});
  document.body.append(told);
});
</script>
"""


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


def drive(page: Path, html: str, steps: str, width: int) -> dict[str, Any]:
    """Open the page `html` in a window so wide, and take JavaScript's `steps`; `found`, which they define.

    It also has `wide`, whether the page is wider than the window, and `problems`, the errors.
    """
    page.write_text(html.replace("<head>", "<head>" + _DRIVER % steps))
    done = browse(page, "--dump-dom", f"--window-size={width},900", "--virtual-time-budget=3000")
    assert "CONSOLE" not in done.stderr
    told = re.search(r'<pre id="told">(.*?)</pre>', done.stdout, re.S)
    assert told is not None
    found: dict[str, Any] = json.loads(unescape(told[1]))
    return found
