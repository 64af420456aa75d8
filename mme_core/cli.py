"""The `mme` command: a table of sub-commands, each imported only when it is run.

Stage 1 must run without torch and stage 2 without Ray, so nothing is imported ahead of its use.
"""

from __future__ import annotations

import errno
import importlib
import io
import os
import re
import signal
import sys
from collections.abc import Sequence

from mme_core.errors import MMEError, UsageError
from mme_core.processes import put_current_folder_last
from mme_core.terminal import plain, plain_lines

# name: (module with `main(argv) -> exit status`, extra that installs it, one line of help)
COMMANDS: dict[str, tuple[str, str, str]] = {
    "estimate": ("preprocess.estimate", "preprocess", "what stage 1 will cost, from a sample"),
    "flows": ("preprocess.flows", "preprocess", "compute the targets of a data set (stage 1)"),
    "info": ("preprocess.info", "preprocess", "say what a store holds"),
    "verify": ("preprocess.verify", "preprocess", "read all of a store, report every damage"),
    "repair": ("preprocess.repair", "preprocess", "make damaged and missing shards anew"),
    "visualize": ("preprocess.visualize", "preprocess", "draw the targets of a stored video"),
    "report": ("preprocess.report", "preprocess", "one page on a store, a run or features"),
    "pretrain": ("train.pretrain", "train", "pre-train an encoder on a store (stage 2)"),
    "finetune": ("train.finetune", "train", "train a classifier from a pre-trained encoder"),
    "evaluate": ("train.evaluate", "train", "multi-view accuracy of a classifier"),
    "probe": ("train.probe", "train", "linear, attentive and kNN probes of an encoder"),
    "ablate": ("train.ablate", "train", "grids of pre-training and measures, one table"),
    "features": ("train.features", "train", "embeddings of a data set's clips"),
    "predict": ("train.predict", "train", "the best classes of video files"),
    "export": ("train.export", "train", "weights for transformers, as an encoder, as ONNX"),
    "convert": ("train.convert", "train", "read VideoMAE's, MME's or transformers' weights"),
}


_MENDABLE = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM)
_HOME_VALUE = re.compile(r"(?P<name>(?:-{0,2}[\w.-]+=)?)(?P<value>~(?:/.*)?)", re.DOTALL)


def _usage() -> str:
    rows = "\n".join(f"  {name:<11}{text}" for name, (_, _, text) in COMMANDS.items())
    return f"usage: mme COMMAND ...\n\n{rows}\n\n`mme COMMAND --help` lists a command's options."


def _run(name: str, argv: list[str]) -> int:
    module, extra, _ = COMMANDS[name]
    try:
        main_function = importlib.import_module(module).main
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("mme_core", "preprocess", "train"):
            raise
        raise UsageError(
            f"`mme {name}` needs {error.name}: install the extra '{extra}' where the sources are, "
            f"pip install '.[{extra}]', or all of them, make setup"
        ) from error
    return main_function(argv) or 0


def expand_home(word: str) -> str:
    """An argument whose value begins with `~/`, which a shell leaves in --root=~/v and store=~/s.

    A folder that is called `~` is written ./~.
    """
    match = _HOME_VALUE.fullmatch(word)
    if match is None:
        return word
    return match["name"] + os.path.expanduser(match["value"])  # noqa: PTH111 – text stays text


def main(argv: Sequence[str] | None = None) -> int:
    """Runs one sub-command and returns its exit status: 2 for wrong usage, 1 for other errors."""
    put_current_folder_last()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name need not be UTF-8
    words = list(sys.argv[1:] if argv is None else argv) or ["--help"]
    name, *rest = map(expand_home, words)
    if name in ("-h", "--help"):
        print(_usage())
        return 0
    if name not in COMMANDS:
        print(f"mme: no command '{plain(name)}'\n\n{_usage()}", file=sys.stderr)
        return 2
    try:
        return _run(name, rest)
    except MMEError as error:
        print(f"mme {name}: {plain_lines(error)}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        print(f"mme {name}: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # `mme info STORE | head`
        sys.stderr.close()
        return 128 + signal.SIGPIPE
    except OSError as error:  # a folder that is read-only or missing, a full disk
        if error.filename is None and error.errno not in _MENDABLE:
            raise
        where = (
            f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        )
        text = f"{where}{error.strerror}; check that it is there, may be written and has room"
        print(f"mme {name}: {plain(text)}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
