"""Blosc on one thread: import it from here.

Its own threads write blocks in the order in which they finish, and do not survive a fork.
"""

from __future__ import annotations

from numcodecs import blosc

blosc.use_threads = False

__all__ = ["blosc"]
