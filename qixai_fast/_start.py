"""Entry point of the ``qixai-fast`` command: Ctrl-C is one line and exit code 130 from here on."""

from __future__ import annotations

import os
import signal
from types import FrameType

INTERRUPTED = 130


def _leave(number: int, frame: FrameType | None) -> None:
    """End at once: libraries that are being imported swallow exceptions, and nothing is half done yet."""
    del number, frame
    os.write(2, b"interrupted.\n")
    os._exit(INTERRUPTED)


def let_interrupt() -> None:
    """From here on Ctrl-C is KeyboardInterrupt again: imports are done, and work begins."""
    if signal.getsignal(signal.SIGINT) is _leave:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def main() -> None:
    """Run the command line."""
    # Ignored where a shell started us in the background: then it stays so.
    if signal.getsignal(signal.SIGINT) is signal.default_int_handler:
        signal.signal(signal.SIGINT, _leave)
    from .cli import app

    app()
