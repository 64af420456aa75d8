"""Lines that a command prints to stderr before its work begins."""

from __future__ import annotations

import os
import sys

from mme_core.terminal import plain


def say(text: str) -> None:
    """Prints a line in the main process, and nothing in the others."""
    if is_main():
        print(plain(text), file=sys.stderr)


def is_main() -> bool:
    """Whether this is the main one of the training processes that torchrun or Slurm started."""
    return os.environ.get("RANK", "0") == "0"
