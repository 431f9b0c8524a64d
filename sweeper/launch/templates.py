"""The templates of `jobs/`: shell scripts and YAML with placeholders such as `__NAME__`.

A value never becomes syntax: in YAML it is put into the parsed structure, in a script it is quoted.
"""

import re
import shlex
from collections.abc import Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from sweeper.errors import LaunchError

PLACEHOLDER = re.compile(r"__([A-Z]+(?:_[A-Z]+)*)__")


class Shell(str):
    """Text that is shell already, and not to be quoted where it stands inside a script."""

    __slots__ = ()


Value = str | int | bool | None
Values = Mapping[str, Value]
"""Placeholders and what they stand for; None leaves out the key or the line that they are in."""


class _Dumper(yaml.SafeDumper):
    """Text of several lines is written as such."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    style = "|" if "\n" in value else None
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style=style)


_Dumper.add_representer(str, _text)
_Dumper.add_representer(Shell, _text)


def template(name: str, own: Path | None = None) -> str:
    """The text of a template: the user's own one where it has that name, else the shipped one.

    Raises:
        LaunchError: `own` is not a folder.
    """
    packaged = Path(str(resources.files("sweeper"))) / "jobs"
    shipped = packaged if packaged.is_dir() else packaged.parents[1] / "jobs"
    if own is not None and not own.is_dir():
        raise LaunchError(f"--templates: {own} is not a folder; copy templates of {shipped} there")
    place = own / name if own is not None and (own / name).is_file() else shipped / name
    return place.read_text(encoding="utf-8")


def fill_script(text: str, values: Values) -> str:
    """A shell script with its placeholders filled; strings are quoted, but not in `#SBATCH` lines.

    sbatch reads those lines without a shell; what goes there has to be plain (see `options`).

    Raises:
        LaunchError: a placeholder that nobody knows.
    """
    lines = []
    for line in text.splitlines():
        names = PLACEHOLDER.findall(line)
        if any(_value(name, values) is None for name in names):
            continue
        plain = line.startswith("#SBATCH")
        lines.append(_filled(line, values, plain))
    return "\n".join(lines) + "\n"


def fill_yaml(text: str, values: Values, without: tuple[tuple[str, ...], ...] = ()) -> str:
    """YAML documents with their placeholders filled, under the comment that the template begins with.

    Args:
        text: The template.
        values: A placeholder that is the whole of a scalar becomes the value with its type; one inside a
            longer scalar is shell text, and quoted.
        without: Keys to leave out, as paths of names as they stand in the template.

    Raises:
        LaunchError: not YAML, or a placeholder that nobody knows.
    """
    head = []
    for line in text.splitlines():
        if not line.startswith("#"):
            break
        head.append(line)
    try:
        documents = list(yaml.safe_load_all(text))
    except yaml.YAMLError as error:
        raise LaunchError(f"a template is not valid YAML: {' '.join(str(error).split())}") from None
    for path in without:
        for document in documents:
            _drop(document, path)
    filled = [_walk(document, values) for document in documents]
    body = yaml.dump_all(filled, Dumper=_Dumper, sort_keys=False, width=1000, allow_unicode=True)
    return "\n".join(head) + "\n" + body


def _drop(place: Any, path: tuple[str, ...]) -> None:
    for name in path[:-1]:
        place = place.get(name) if isinstance(place, dict) else None
    if isinstance(place, dict):
        place.pop(path[-1], None)


def _walk(node: Any, values: Values) -> Any:
    if isinstance(node, dict):
        pairs = ((_scalar(key, values), _walk(value, values)) for key, value in node.items())
        empty = {key for key, value in node.items() if _is_left_out(value, values)}
        return {
            key: value for (key, value), old in zip(pairs, node, strict=True) if old not in empty
        }
    if isinstance(node, list):
        return [_walk(item, values) for item in node if not _is_left_out(item, values)]
    return _scalar(node, values)


def _is_left_out(node: Any, values: Values) -> bool:
    if not isinstance(node, str):
        return False
    return any(_value(name, values) is None for name in PLACEHOLDER.findall(node))


def _scalar(node: Any, values: Values) -> Any:
    if not isinstance(node, str):
        return node
    whole = PLACEHOLDER.fullmatch(node)
    if whole:
        value = _value(whole.group(1), values)
        return str(value) if isinstance(value, str) else value
    return _filled(node, values, plain=False)


def _filled(text: str, values: Values, plain: bool) -> str:
    def put(match: re.Match[str]) -> str:
        value = _value(match.group(1), values)
        if plain or isinstance(value, Shell | int):
            return str(value)
        return shlex.quote(str(value))

    return PLACEHOLDER.sub(put, text)


def _value(name: str, values: Values) -> Value:
    if name not in values:
        known = ", ".join(f"__{key}__" for key in sorted(values))
        raise LaunchError(f"a template has the placeholder __{name}__; known here: {known}")
    return values[name]
