"""Gives every process that a command starts one thread and a safe import path.

A folder of experiments often has a train.py, a utils.py or a numpy.py of its own. Python would
import these in place of the installed packages, because `python -m` and `python -c` look into the
current folder first. So child processes do not look there, and a command looks there last.
"""

import os  # and nothing else from outside of `sys`: another import may find the wrong module
import sys

# NumPy's BLAS would start as many threads as the machine has cores, and these wait for each other
# by spinning. OpenCV and torch must be told in the process itself.
ONE_THREAD = dict.fromkeys(
    ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "NUMEXPR_NUM_THREADS"), "1"
)
SOURCES = os.path.dirname(os.path.dirname(os.path.abspath(__file__)))  # noqa: PTH100, PTH120


def put_current_folder_last() -> None:
    """Moves the current folder to the end of `sys.path`, if it is there.

    A flow plug-in in the current folder is still found, but nothing there hides another module. The
    folder of our own sources stays where it is.
    """
    here, others = _current_folder(), import_path()
    if here in others and here != SOURCES:
        others.remove(here)
        sys.path[:] = [*others, here]


def import_path(*more: str) -> list[str]:
    """Returns the absolute folders that this process imports from, followed by `more`."""
    here = _current_folder()
    folders = [here if _is_current(path, here) else path for path in (*sys.path, *more)]
    return list(dict.fromkeys(folders))


def plugin_path() -> list[str]:
    """Returns the folders to search for a flow plug-in: `import_path` and the current folder."""
    return import_path(_current_folder())


def child_environment(*more: str) -> dict[str, str]:
    """Returns the environment of a Python child process that has this import path and `more`."""
    path = os.pathsep.join(import_path(*more))
    return {**os.environ, **ONE_THREAD, "PYTHONSAFEPATH": "1", "PYTHONPATH": path}


class ChildEnvironment:
    """`with ChildEnvironment():` gives `child_environment()` to every process started inside."""

    def __enter__(self) -> None:
        self._before = dict(os.environ)
        os.environ.update(child_environment())

    def __exit__(self, *_: object) -> None:
        for name in os.environ.keys() - self._before.keys():
            del os.environ[name]
        os.environ.update(self._before)


def die_with_parent(parent: int) -> None:
    """Ends this process when its parent ends. `parent` is the parent's process id.

    On Linux the kernel does it, even if this process hangs. Other systems only detect a parent that
    has already ended.
    """
    import ctypes
    import signal

    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    if os.getppid() != parent:
        sys.exit(1)


def end_first_without_memory() -> None:
    """When memory runs out, the kernel ends this process before others. Only on Linux."""
    try:
        with open("/proc/self/oom_score_adj", "w") as file:  # noqa: PTH123
            file.write("1000")
    except OSError:  # not Linux, or a read-only /proc
        return


def _current_folder() -> str:
    try:
        return os.getcwd()  # noqa: PTH109
    except FileNotFoundError:  # removed since
        return ""


def _is_current(path: str, here: str) -> bool:
    return not path or os.path.realpath(path) == here
