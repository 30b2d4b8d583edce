"""The command line: one module for each command, each a few lines over the library.

This module imports only modules that Python loads when it starts: `main` handles Ctrl-C before it imports the others.
"""

import _signal  # type: ignore[import-not-found]  # `signal` wraps it, and takes milliseconds to import
import os
import sys
from types import FrameType

INTERRUPTED = 130


def main() -> None:
    """Run the command line; exit with 0 (done), 1 (failed, with a message), 2 (wrong usage) or 130 (interrupted)."""
    ctrl_c = _CtrlC()
    ctrl_c.listen()
    try:
        from dealias.cli.commands import run_command

        run_command(lambda: ctrl_c.came)
    except BaseException as error:
        ctrl_c.is_ending = True
        code = error.code if isinstance(error, SystemExit) else None
        # Typer turns KeyboardInterrupt into its exit code; a library may turn it into any exception
        if isinstance(error, KeyboardInterrupt) or code == INTERRUPTED or (ctrl_c.came and code != 0):
            ctrl_c.tell()
            sys.exit(INTERRUPTED)
        raise


class _CtrlC:
    """Ends the process after Ctrl-C with the exit code 130 and the word "interrupted", once.

    Ctrl-C raises KeyboardInterrupt, so that open files are closed. The process ends at once, without an exception,
    during an import, where an extension module may lose the exception or turn it into another, and after the command.
    """

    def __init__(self) -> None:
        self.came = self.is_ending = self.is_told = False
        self._process = os.getpid()

    def listen(self) -> None:
        """Handle SIGINT, unless it is ignored: shells start background jobs with SIGINT ignored."""
        if _signal.getsignal(_signal.SIGINT) is _signal.default_int_handler:
            _signal.signal(_signal.SIGINT, self._handle)
            sys.unraisablehook = self._handle_unraisable

    def tell(self) -> None:
        """Write "interrupted", once."""
        if not self.is_told:
            self.is_told = True
            shown_cursor = b"\r\x1b[2K\x1b[?25h" if os.isatty(2) else b""  # a progress bar hides it
            os.write(2, shown_cursor + b"interrupted\n")

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.came = True
        if self.is_ending or _is_importing(frame):
            self._leave()
        raise KeyboardInterrupt

    def _handle_unraisable(self, unraisable: "sys.UnraisableHookArgs") -> None:
        """Exceptions raised in destructors and callbacks are lost."""
        if isinstance(unraisable.exc_value, KeyboardInterrupt):
            self._leave()
        sys.__unraisablehook__(unraisable)

    def _leave(self) -> None:
        try:
            if os.getpid() == self._process:  # not in a forked process that loads images
                self.tell()
        finally:
            os._exit(INTERRUPTED)


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False
