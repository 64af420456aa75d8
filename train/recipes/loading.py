"""Recipes: from YAML files and `key=value` words to an instance of a dataclass, and back.

    config = load(PretrainConfig, ["--config", "tiny.yaml", "store=out/demo", "out=runs/a"], …)

Files are merged in their order, words last. A key that no dataclass knows is an error that names
the nearest one; so is a value of the wrong type or outside its limits (`train.recipes.fields`).
Interpolations such as ${oc.env:NAME} are resolved in the user's own recipe alone. Messages show
their text, not their value.
"""

from __future__ import annotations

import dataclasses
import difflib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Generic, NamedTuple, TypeVar, cast, get_type_hints

import yaml
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException, ValidationError

from mme_core.errors import UsageError
from mme_core.io.remote import is_url
from mme_core.keys import dotted
from mme_core.parser import CommandParser
from train.recipes.ablation import AblateConfig, place_of
from train.recipes.commands import SCHEMAS
from train.recipes.fields import MISSING, as_text, check_limits, describe, walk

RECIPES = Path(__file__).parent.parent / "configs"
Config = TypeVar("Config")

# ends of OmegaConf's messages on a value of the wrong type, in the words of our own
_KINDS = {
    "Incompatible value 'None' for field of type 'str'": "has no value; give one",
    " of type 'str'": "",
    "could not be converted to Integer": "is not a whole number",
    "could not be converted to Float": "is not a number",
    "is not a valid bool": "is neither true nor false",
}


class Loaded(NamedTuple, Generic[Config]):
    """A configuration, and what its user gave: keys with dots, and names of flags."""

    config: Config
    keys: set[str]
    flags: set[str]


def load(
    schema: type[Config], argv: Sequence[str], prog: str, description: str, under: str = ""
) -> Config:
    """An instance of the dataclass `schema` from `--config FILE … key=value …`.

    A FILE that is not found as such is looked for among the recipes that come with the package.
    under  what a key begins with where the user sets it: "pretrain." in a grid
    Raises UsageError for unknown keys, wrong types, values outside limits and missing values.
    """
    return load_given(schema, argv, prog, description, {}, under).config


def load_given(
    schema: type[Config],
    argv: Sequence[str],
    prog: str,
    description: str,
    flags: Mapping[str, str],
    under: str = "",
) -> Loaded[Config]:
    """Like `load`, for a command that asks what was given, or takes flags: {"json": its help}."""
    epilog = f"keys and their defaults:\n\n{describe(schema)}"
    parser = CommandParser(prog.removeprefix("mme "), description, epilog)
    config_help = "a recipe; repeatable, later ones override (default: none)"
    parser.add_argument("--config", action="append", metavar="FILE", help=config_help)
    for name, text in flags.items():
        parser.add_argument(f"--{name}", action="store_true", help=text)
    parser.add_argument("words", nargs="*", metavar="key=value", help="overrides the recipes")
    arguments = parser.parse_intermixed_args(argv)
    layers = [(f"{path}: ", read_yaml(path)) for path in arguments.config or []]
    layers += [("", _read_words(schema, arguments.words))]
    config = merge(schema, layers, interpolate=True, under=under)
    if is_url(out := getattr(config, "out", "")):
        raise UsageError(f"out={out} is a URL; name a path on a disk")
    given = {name for name in flags if getattr(arguments, name.replace("-", "_"))}
    return Loaded(config, {key for _, layer in layers for key in dotted(layer)}, given)


def merge(
    schema: type[Config],
    layers: Sequence[tuple[str, Mapping[str, Any]]],
    interpolate: bool = False,
    under: str = "",
) -> Config:
    """Merges mappings into the defaults of `schema`; later ones override earlier ones.

    layers       (prefix of the error messages, mapping)
    interpolate  resolve ${…}, for the user's own recipe. Otherwise ${…} is an error, as in the
                 recipe that a run's folder holds.
    under        as of `load`
    """
    config = OmegaConf.structured(schema)
    known = list(_keys(config))
    raw: dict[str, str] = {}
    for prefix, layer in layers:
        try:
            _check_keys(layer, config, known)
            config = OmegaConf.merge(config, OmegaConf.create(dict(layer)))
        except UsageError as error:
            raise UsageError(f"{prefix}{error}") from error
        except OmegaConfBaseException as error:
            raise UsageError(f"{prefix}{_explain(error)}") from error
        raw = raw | {key: str(value) for key, value in dotted(layer).items()}
    raw = {key: text for key, text in raw.items() if "${" in text}
    if raw and not interpolate:
        key = min(raw)
        raise UsageError(f"{key}={raw[key]} is not resolved: only your own recipe may say ${{…}}")
    _resolve(config, raw)
    missing = sorted(OmegaConf.missing_keys(config))
    if missing:
        meanings = {key: limits.help for key, _, limits in walk(schema())}
        names = {f"{under}{key}": meanings[key] for key in missing}
        words = " ".join(f"{name}=…" for name in names)
        raise UsageError(
            f"{' and '.join(names)} {'is' if len(names) == 1 else 'are'} not set: add {words} "
            "to the command or to the recipe "
            f"({', '.join(f'{name}: {meaning}' for name, meaning in names.items())})"
        )
    values = cast(Config, OmegaConf.to_object(config))
    check_limits(values, raw)
    return _expand_home(values)


def _resolve(config: Any, raw: Mapping[str, str]) -> None:
    try:
        OmegaConf.resolve(config)
    except ValidationError as error:  # its message shows the value, which may be a secret
        key = error.full_key or min(raw)
        raise UsageError(f"{key}={raw.get(key, '${…}')} has the wrong type") from error
    except OmegaConfBaseException as error:
        raise UsageError(_explain(error)) from error


def _expand_home(config: Any) -> Any:
    """Replaces `~` at the start of each text, in lists too, by the user's home folder."""
    if dataclasses.is_dataclass(config):
        for item in dataclasses.fields(config):
            setattr(config, item.name, _expand_home(getattr(config, item.name)))
    if isinstance(config, list):
        return [_expand_home(one) for one in config]
    if isinstance(config, str) and (config == "~" or config.startswith("~/")):
        return str(Path(config).expanduser())
    return config


def _explain(error: OmegaConfBaseException) -> str:
    key = f"{error.full_key}: " if error.full_key else ""
    text = str(error).splitlines()[0]
    for theirs, ours in _KINDS.items():
        text = text.replace(theirs, ours)
    return f"{key}{text}"


def to_dict(config: Any) -> dict[str, Any]:
    """The resolved configuration as plain values, as it goes into a checkpoint."""
    return dataclasses.asdict(config)


def to_yaml(config: Any) -> str:
    """The resolved configuration as it goes into a run's folder."""
    return OmegaConf.to_yaml(OmegaConf.create(to_dict(config)))


def changed_keys(config: Any) -> Iterator[str]:
    """A line `key: value (default: value)` for each key that does not have its default."""
    defaults = {key: value for key, value, _ in walk(type(config)())}
    for key, value, _ in walk(config):
        if value != defaults[key] and defaults[key] != MISSING:
            yield " ".join(f"{key}: {as_text(value)} (default: {as_text(defaults[key])})".split())


def differing_keys(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """Keys whose values differ between two plain configurations.

    Without the values: some may come from the environment, and messages must not show these.
    """
    a, b = dotted(mine), dotted(theirs)
    absent = object()
    return [k for k in dict.fromkeys([*a, *b]) if a.get(k, absent) != b.get(k, absent)]


def _keys(config: Any, prefix: str = "") -> Iterator[str]:
    for item in dataclasses.fields(cast(type, OmegaConf.get_type(config))):
        yield f"{prefix}{item.name}"
        kind = OmegaConf.get_type(config, item.name)
        if dataclasses.is_dataclass(kind):
            yield from _keys(config[item.name], f"{prefix}{item.name}.")


def _check_keys(layer: Mapping, config: Any, known: Sequence[str], prefix: str = "") -> None:
    for name, value in layer.items():
        key = f"{prefix}{name}"
        if "." in str(name):
            section, _, rest = str(name).partition(".")
            raise UsageError(
                f"{key}: in a YAML file write {section}: {{{rest}: …}}, without the dot"
            )
        if key not in known:
            key = next(iter(dotted({key: value})), key)  # view.clips rather than view
            nearest = difflib.get_close_matches(key, known, n=1, cutoff=0)
            raise UsageError(
                f"{key} is not a key of this recipe; the nearest is {nearest[0]}"
                f"{_users(key, OmegaConf.get_type(config))}"
            )
        kind = OmegaConf.get_type(config, name)
        if kind is list and isinstance(value, int | float | str) and "${" not in str(value):
            raise UsageError(f"{key}={value} must be a list, such as {key}=[{value}]")
        if kind is dict and not isinstance(value, Mapping) and "${" not in str(value):
            raise UsageError(f"{key}={value} must hold keys, such as {key}={{NAME: …}}")
        if not dataclasses.is_dataclass(kind):
            continue
        if not isinstance(value, Mapping):
            raise UsageError(f"{key} holds further keys, such as {key}.{next(_keys(config[name]))}")
        _check_keys(value, config[name], known, f"{key}.")


def _users(key: str, section: Any) -> str:
    """Names the commands that have the key, or where a grid sets it."""
    users = [name for name, schema in SCHEMAS.items() if key in _keys(OmegaConf.structured(schema))]
    if section is AblateConfig and (place := place_of(key, users)):
        return f"; {place}"
    return f"; {key} belongs to mme {', '.join(users)}" if users else ""


def _recipes() -> list[str]:
    return sorted(str(path.relative_to(RECIPES)) for path in RECIPES.rglob("*.yaml"))


def read_yaml(name: str) -> dict[str, Any]:
    path = Path(name) if Path(name).exists() else RECIPES / name
    if not path.is_file():
        near = difflib.get_close_matches(name, _recipes(), 3, cutoff=0.4)
        offer = f"did you mean {' or '.join(near)}? " if near else ""
        raise UsageError(
            f"--config {name}: no such file here, nor among the recipes that come with mme; {offer}"
            f"those are in {RECIPES}"
        )
    try:
        values = OmegaConf.to_container(OmegaConf.load(path))
    except (yaml.YAMLError, UnicodeDecodeError, OmegaConfBaseException) as error:
        text = " ".join(str(error).split())
        raise UsageError(f"--config {name}: is not valid YAML ({text})") from error
    if not isinstance(values, dict):
        raise UsageError(f"--config {name}: a recipe is a mapping of keys to values")
    return cast(dict[str, Any], values)


def _literal(schema: type, word: str) -> str:
    """Puts a text value in quotes, because YAML reads the folder 007 as 7, and "run #1" as run."""
    key, _, value = word.partition("=")
    kind: Any = schema
    for name in key.split("."):
        kind = get_type_hints(kind).get(name) if dataclasses.is_dataclass(kind) else None
    marks = "'\"[" if kind is Any else "'\""  # Any: a path, or a list of them
    if kind not in (str, str | None, Any) or value in ("", "null") or value[0] in marks:
        return word
    return f"{key}={json.dumps(value, ensure_ascii=False)}"


def _read_words(schema: type, words: Sequence[str]) -> dict[str, Any]:
    for word in words:
        if "=" not in word or word.startswith(("=", "-")):
            hint = f"; a recipe is named by --config {word}" if word.endswith(".yaml") else ""
            raise UsageError(f"'{word}' is not of the form key=value{hint}")
    values = OmegaConf.create()
    for word in words:
        try:
            values.merge_with_dotlist([_literal(schema, word)])
        except (yaml.YAMLError, OmegaConfBaseException) as error:
            raise UsageError(
                f"'{word}' cannot be read ({str(error).splitlines()[0]}); put quotes around a word "
                "that has spaces, such as 'key=[1, 2]'"
            ) from error
    return cast(dict[str, Any], OmegaConf.to_container(values))
