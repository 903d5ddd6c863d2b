"""How words and YAML become settings, or are refused with what would be right."""

from __future__ import annotations

import argparse
import difflib
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn, TypeVar, get_args

import yaml
from pydantic import BaseModel, ValidationError
from pydantic_settings import CliSettingsSource, SettingsError

from celebvision.config.settings import Settings, WordsError

WHOLE = {"styles"}  # whose names are the user's own: those of a flag take the place of all of the file's

AnySettings = TypeVar("AnySettings", bound=Settings)


class _Parser(argparse.ArgumentParser):
    known: Sequence[str] = ()

    def error(self, message: str) -> NoReturn:
        _, _, unknown = message.partition("unrecognized arguments: ")
        if not unknown:
            raise WordsError(message)
        word = unknown.split()[0]
        raise WordsError(f"{word}: there is no such setting{_closest(word, self.known)}")


def parse(settings: type[AnySettings], words: Sequence[str], prog: str) -> AnySettings:
    """Read `[--config FILE.yaml] [--key value …]` into `settings`.

    Raises:
        WordsError: for the first unknown key, wrong type or value out of bounds, with what would be right.
        SystemExit: after `--help`.
    """
    parser = _Parser(prog=prog, description=settings.__doc__, allow_abbrev=False)
    parser.add_argument("--config", metavar="FILE.yaml", help="settings from a file; flags win over it")
    source: CliSettingsSource[Any] = CliSettingsSource(
        settings,
        root_parser=parser,
        cli_parse_args=False,
        cli_prog_name=prog,
        cli_avoid_json=True,
        cli_hide_none_type=True,
        cli_implicit_flags=True,
    )
    parser.known = [option for action in parser._actions for option in action.option_strings]
    arguments = parser.parse_args(list(words))
    try:
        from_flags = source(parsed_args=arguments)()
    except SettingsError as error:
        raise WordsError(_unread(error)) from None
    from_file = _read_yaml(Path(arguments.config)) if arguments.config else {}
    try:
        return settings(**_merge(from_file, from_flags))
    except ValidationError as error:
        raise WordsError("\n".join(_sentences(error, settings))) from None


def _read_yaml(path: Path) -> dict[str, Any]:
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise WordsError(f"--config {path}: {error.strerror}") from None
    except yaml.YAMLError as error:
        raise WordsError(f"--config {path}: not YAML: {error}") from None
    if not isinstance(content, dict):
        raise WordsError(f"--config {path}: should hold keys and values, holds {type(content).__name__}")
    return content


def _merge(under: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    merged = dict(under)
    for key, value in over.items():
        both = key not in WHOLE and isinstance(value, dict) and isinstance(merged.get(key), dict)
        merged[key] = _merge(merged[key], value) if both else value
    return merged


def _unread(error: SettingsError) -> str:
    """Of a list or of names with values that is neither of the forms they may be given in."""
    named = re.search(r'for (?:field ")?([\w.]+)', str(error))
    key = f"--{named[1]}" if named else str(error)
    return f"{key}: should be VALUE,VALUE for a list and NAME=VALUE,NAME=VALUE for names, or JSON with double quotes"


def _sentences(error: ValidationError, settings: type[BaseModel]) -> list[str]:
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            name, known = str(problem["loc"][-1]), _names_beside(problem["loc"], settings)
            lines.append(f"{key}: there is no such setting{_closest(name, known)}")
        elif problem["type"] == "missing":
            lines.append(f"{key}: is missing; give --{key}")
        else:
            right = problem["msg"].removeprefix("Value error, ").removeprefix("Input ")
            lines.append(f"{key}: {problem['input']!r} is refused: {right}" if key else right)
    return lines


def _names_beside(place: tuple[int | str, ...], model: type[BaseModel]) -> list[str]:
    for part in place[:-1]:
        annotation = model.model_fields[part].annotation if isinstance(part, str) else None
        for kind in (annotation, *get_args(annotation)):
            if isinstance(kind, type) and issubclass(kind, BaseModel):
                model = kind
    return [field.alias or name for name, field in model.model_fields.items()]


def _closest(word: str, known: Sequence[str]) -> str:
    close = difflib.get_close_matches(word, known, n=1)
    return f"; did you mean {close[0]}?" if close else f"; there are: {', '.join(sorted(known))}"
