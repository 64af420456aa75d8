"""The `mme` command: a table of sub-commands, each imported only when it is run.

Stage 1 must run without torch and stage 2 without Ray, so nothing is imported ahead of its use.
"""

from __future__ import annotations

import difflib
import errno
import importlib
import io
import os
import re
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import NamedTuple

from mme_core.errors import MMEError, UsageError
from mme_core.processes import put_current_folder_last
from mme_core.terminal import plain, plain_lines, quieted


class Command(NamedTuple):
    """One sub-command.

    module   its module, with `main(argv) -> exit status`
    extra    the extra that installs what it needs; "" for the library alone
    help     one line
    example  the words of an example, after `mme`
    """

    module: str
    extra: str
    help: str
    example: str


# part of the map of commands: {name: command}
PARTS: dict[str, dict[str, Command]] = {
    "from videos to a store of targets (stage 1)": {
        "estimate": Command(
            "preprocess.estimate",
            "preprocess",
            "what stage 1 will cost, from a sample",
            "estimate --dataset folder --root videos",
        ),
        "flows": Command(
            "preprocess.flows",
            "preprocess",
            "compute the targets of a data set",
            "flows --dataset folder --root videos --store store",
        ),
        "retarget": Command(
            "preprocess.retarget",
            "preprocess",
            "other targets from a store's kept flow",
            "retarget store --store other spec.length=8",
        ),
    },
    "look at a store, and mend it": {
        "info": Command("preprocess.info", "preprocess", "say what a store holds", "info store"),
        "report": Command(
            "preprocess.report",
            "preprocess",
            "one page on a store, on runs or on features",
            "report store -o report.html",
        ),
        "visualize": Command(
            "preprocess.visualize",
            "preprocess",
            "draw the targets of a stored video",
            "visualize store --video CLASS/NAME.mp4 -o tracks.mp4",
        ),
        "verify": Command(
            "preprocess.verify",
            "preprocess",
            "read a whole store and report all damage",
            "verify store --workers 4",
        ),
        "repair": Command(
            "preprocess.repair",
            "preprocess",
            "make damaged and missing shards anew",
            "repair store",
        ),
    },
    "from a store to an encoder and a classifier (stage 2)": {
        "pretrain": Command(
            "train.pretrain",
            "train",
            "pre-train an encoder on a store",
            "pretrain --config pretrain/ucf101.yaml store=store out=runs/mine",
        ),
        "finetune": Command(
            "train.finetune",
            "train",
            "train a classifier from a pre-trained encoder",
            "finetune --config finetune/ucf101.yaml init=runs/mine store=store val_store=val "
            "out=runs/classifier",
        ),
        "evaluate": Command(
            "train.evaluate",
            "train",
            "multi-view accuracy of a classifier",
            "evaluate init=runs/classifier val_store=val out=runs/evaluation",
        ),
        "probe": Command(
            "train.probe",
            "train",
            "linear, attentive and kNN probes of an encoder",
            "probe --config probe/ucf101.yaml init=runs/mine store=store val_store=val "
            "out=runs/probe",
        ),
        "ablate": Command(
            "train.ablate",
            "train",
            "grids of pre-training and measures, one table",
            "ablate ablate/generated.yaml ablate/table7b.yaml out=runs/7b",
        ),
    },
    "use weights": {
        "features": Command(
            "train.features",
            "train",
            "embeddings of a data set's clips",
            "features init=runs/mine data.dataset=folder data.root=videos out=features.zarr",
        ),
        "predict": Command(
            "train.predict",
            "train",
            "the best classes of video files",
            "predict clip.mp4 --weights runs/classifier",
        ),
        "export": Command(
            "train.export",
            "train",
            "weights for transformers, as an encoder, as ONNX",
            "export runs/mine --to encoder -o encoder.safetensors",
        ),
        "convert": Command(
            "train.convert",
            "train",
            "read VideoMAE's, MME's or transformers' weights",
            "convert checkpoint.pth -o weights.safetensors",
        ),
    },
    "this program": {
        "doctor": Command(
            "preprocess.doctor", "", "check this machine and the installation", "doctor"
        ),
        "completion": Command(
            "mme_core.completion", "", "completion for your shell", "completion bash"
        ),
    },
}
COMMANDS = {name: command for part in PARTS.values() for name, command in part.items()}

_PERMISSION = "change its permissions, or name another place"
# errors of the system that the user can mend even where no file is named, and how
_MENDS = {
    errno.ENOSPC: "free some space, or name a place on another disk",
    errno.EDQUOT: "free some of your quota, or name a place on another disk",
    errno.EROFS: "name a place that may be written",
    errno.EACCES: _PERMISSION,
    errno.EPERM: _PERMISSION,
}
# and if a file is named
_NAMED_MENDS = {
    **_MENDS,
    errno.ENOENT: "check the path",
    errno.ENOTDIR: "a part of this path is a file: name a folder",
    errno.EEXIST: "there is a file of this name: name a folder",
    errno.EISDIR: "this is a folder: name a file",
}
_HOME_VALUE = re.compile(r"(?P<name>(?:-{0,2}[\w.-]+=)?)(?P<value>~(?:/.*)?)", re.DOTALL)
_HELP = ("-h", "--help")
_GLOBAL = ("--quiet", "--debug")  # options of every command


def _usage() -> str:
    """The map of the commands, with an example of each."""
    lines = ["usage: mme COMMAND ..."]
    for title, commands in PARTS.items():
        lines += ["", title]
        for name, command in commands.items():
            lines += [f"  {name:<11}{command.help}", f"{'':13}mme {command.example}"]
    lines += [
        "",
        "`mme COMMAND --help` lists a command's options. Every command also takes",
        "  --quiet    print only results and errors",
        "  --debug    show where in the code an error arose",
    ]
    return "\n".join(lines)


def _run(name: str, argv: list[str]) -> int:
    if name in _HELP:
        print(_usage(), flush=True)
        return 0
    command = COMMANDS[name]
    try:
        main_function = importlib.import_module(command.module).main
    except ModuleNotFoundError as error:
        if (error.name or "").split(".")[0] in ("mme_core", "preprocess", "train"):
            raise
        raise UsageError(
            f"`mme {name}` needs {error.name}: install the extra '{command.extra}' where the "
            f"sources are, pip install '.[{command.extra}]', or all of them, make setup"
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
    """Runs one sub-command and returns its exit status; docs/commands.md has them all."""
    put_current_folder_last()
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a file's name need not be UTF-8
    words = list(sys.argv[1:] if argv is None else argv)
    flags = {word for word in words if word in _GLOBAL}
    name, *rest = [expand_home(word) for word in words if word not in _GLOBAL] or ["--help"]
    if name not in COMMANDS and name not in _HELP:
        near = difflib.get_close_matches(name, COMMANDS, 1)
        offer = f"did you mean `mme {near[0]}`?" if near else "`mme` lists the commands"
        print(f"mme: no command '{plain(name)}'; {offer}", file=sys.stderr)
        return 2
    with quieted("--quiet" in flags):
        return _guarded(name, rest, debug="--debug" in flags)


def _guarded(name: str, rest: list[str], debug: bool) -> int:
    """Runs a command. An error that the user can mend is printed as one line.

    debug  print the error's traceback as well
    """
    try:
        return _run(name, rest)
    except MMEError as error:
        if debug:
            traceback.print_exc()
        print(f"mme {name}: {plain_lines(error)}", file=sys.stderr)
        return 2 if isinstance(error, UsageError) else 1
    except KeyboardInterrupt:
        print(f"mme {name}: interrupted", file=sys.stderr)
        return 128 + signal.SIGINT
    except BrokenPipeError:  # `mme info STORE | head`
        sys.stderr.close()
        return 128 + signal.SIGPIPE
    except OSError as error:  # a folder that is read-only or missing, a full disk
        if error.filename is None and error.errno not in _MENDS:
            raise
        if debug:
            traceback.print_exc()
        where = (
            f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
        )
        mend = _NAMED_MENDS.get(error.errno or 0, "check that it is there and may be written")
        text = f"{where}{error.strerror}; {mend}"
        print(f"mme {name}: {plain(text)}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main())
