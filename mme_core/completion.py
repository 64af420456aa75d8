"""Prints a script that completes `mme` on the command line: commands, options, recipe keys.

    mme completion bash > ~/.local/share/bash-completion/completions/mme
    mme completion zsh > ~/.zfunc/_mme             (fpath+=~/.zfunc before compinit in ~/.zshrc)
    mme completion fish > ~/.config/fish/completions/mme.fish

The words are those of each command's help. Commands whose extra is not installed are completed by
name alone. Write the script again after an update.
"""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import re
from collections.abc import Mapping

from mme_core.cli import COMMANDS
from mme_core.parser import CommandParser
from mme_core.spec import TargetSpec

_OPTION = re.compile(r"(?<![\w-])--?[a-z][a-z-]*(?![\w-])")
_KEY = re.compile(r"^  ([a-z][\w.]*=)")


def main(argv: list[str]) -> int:
    parser = CommandParser("completion", __doc__)
    parser.add_argument("shell", choices=SCRIPTS, metavar="SHELL", help=", ".join(SCRIPTS))
    shell = parser.parse_args(argv).shell
    print(SCRIPTS[shell]({name: words_of(name) for name in COMMANDS}))
    return 0


def words_of(name: str) -> list[str]:
    """The options of a command, and its keys with `=`; [] where its extra is not installed."""
    if name == "completion":
        return [*SCRIPTS, "--help"]
    printed = io.StringIO()
    try:
        module = importlib.import_module(COMMANDS[name].module)
        with contextlib.redirect_stdout(printed), contextlib.suppress(SystemExit):
            module.main(["--help"])
    except ModuleNotFoundError:
        return []
    return words_in(printed.getvalue())


def words_in(text: str) -> list[str]:
    """The options and keys that a help text explains, each once."""
    found: list[str] = []
    for line in text.splitlines():
        if line.startswith("  -"):  # `  -o FILE, --output FILE   explanation`
            found += _OPTION.findall(re.split(r"\s{3,}", line.strip())[0])
        elif (match := _KEY.match(line)) and match[1] != "key=":
            found.append(match[1])
    if "spec.FIELD=" in text:
        found += [f"spec.{field.name}=" for field in dataclasses.fields(TargetSpec)]
    return list(dict.fromkeys([*found, "--quiet", "--debug"]))


def bash(words: Mapping[str, list[str]]) -> str:
    cases = "\n".join(f"    {name}) words='{' '.join(own)}' ;;" for name, own in words.items())
    return f"""# bash completion for mme
_mme() {{
  local current=${{COMP_WORDS[COMP_CWORD]}} words=''
  COMPREPLY=()
  if [ "$COMP_CWORD" -eq 1 ]; then
    COMPREPLY=($(compgen -W '{" ".join(words)} --help' -- "$current"))
    return
  fi
  case ${{COMP_WORDS[1]}} in
{cases}
  esac
  [ "$current" = '=' ] && current=''
  [ "${{COMP_WORDS[COMP_CWORD - 1]}}" = '=' ] && words=''
  [ -n "$current" ] && COMPREPLY=($(compgen -W "$words" -- "$current"))
  case ${{COMPREPLY[0]}} in *=) compopt -o nospace 2> /dev/null ;; esac
}}
complete -o default -o bashdefault -F _mme mme"""


def zsh(words: Mapping[str, list[str]]) -> str:
    names = "\n".join(
        f"    '{name}:{COMMANDS[name].help.replace(chr(39), chr(39) * 2)}'" for name in words
    )
    cases = "\n".join(f"    {name}) words=({' '.join(own)}) ;;" for name, own in words.items())
    return f"""#compdef mme
setopt local_options rc_quotes
local -a commands own keys options
if (( CURRENT == 2 )); then
  commands=(
{names}
  )
  _describe command commands
  return
fi
case $words[2] in
{cases.replace("words=(", "own=(")}
esac
keys=(${{(M)own:#*=}})
options=(${{own:#*=}})
compadd -S '' -- $keys
compadd -- $options
_files"""


def fish(words: Mapping[str, list[str]]) -> str:
    lines = ["# fish completion for mme"]
    for name, own in words.items():
        text = COMMANDS[name].help.replace("'", "\\'")
        lines.append(f"complete -c mme -n __fish_use_subcommand -f -a {name} -d '{text}'")
        used = f"-n '__fish_seen_subcommand_from {name}'"
        for word in own:
            if word.startswith("--"):
                lines.append(f"complete -c mme {used} -l {word[2:]}")
            elif word.startswith("-"):
                lines.append(f"complete -c mme {used} -s {word[1:]}")
        rest = [word for word in own if not word.startswith("-")]
        if rest:
            lines.append(f"complete -c mme {used} -a '{' '.join(rest)}'")
    return "\n".join(lines)


SCRIPTS = {"bash": bash, "zsh": zsh, "fish": fish}
