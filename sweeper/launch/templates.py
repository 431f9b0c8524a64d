"""The templates of `jobs/`: shell scripts and YAML with Jinja's `{{ name }}` and `{% if name %}`.

Values are always escaped: quoted for the shell in a script, as a quoted scalar in YAML. Shell code inside
YAML uses `{{ name | sh }}`.
"""

import shlex
from collections.abc import Callable, Mapping
from importlib import resources
from pathlib import Path
from typing import Any

import yaml

from sweeper.errors import LaunchError


class Raw(str):
    """Text that is shell or YAML already and is not quoted."""

    __slots__ = ()


Values = Mapping[str, str | int | bool | None]
"""The values of a template's names; None is only for `{% if %}`."""


def template(name: str, own: Path | None = None) -> str:
    """The text of a template: the user's own if it exists, else the shipped one.

    Raises:
        LaunchError: `own` is not a folder.
    """
    packaged = Path(str(resources.files("sweeper"))) / "jobs"
    shipped = packaged if packaged.is_dir() else packaged.parents[1] / "jobs"
    if own is not None and not own.is_dir():
        raise LaunchError(
            f"--templates: {own} is not a folder; copy templates of {shipped} there",
            code="launch.not_a_folder",
            path=own,
        )
    place = own / name if own is not None and (own / name).is_file() else shipped / name
    return place.read_text(encoding="utf-8")


def fill_script(text: str, values: Values) -> str:
    """A shell script with names replaced by shell-quoted values.

    sbatch reads `#SBATCH` lines without a shell; values there must need no quoting (see `options`).
    Raises: LaunchError: an invalid template, or a name that is unknown or has no value.
    """
    return _render(text, values, _shell)


def fill_yaml(text: str, values: Values) -> str:
    """YAML documents with their names replaced by scalars that keep the type of the value.

    Raises:
        LaunchError: an invalid template, a name that is unknown or has no value, or invalid YAML.
    """
    filled = _render(text, values, _scalar)
    try:
        list(yaml.safe_load_all(filled))
    except yaml.YAMLError as error:
        raise LaunchError(
            f"a template is not valid YAML: {' '.join(str(error).split())}",
            code="launch.template",
            fault="yaml",
        ) from None
    return filled


def _render(text: str, values: Values, quote: Callable[[Any], Raw]) -> str:
    from jinja2 import (
        StrictUndefined,
        TemplateError,
        TemplateSyntaxError,
    )  # Slow to import, and rarely needed.
    from jinja2.sandbox import ImmutableSandboxedEnvironment

    environment = ImmutableSandboxedEnvironment(
        undefined=StrictUndefined,
        finalize=quote,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
        comment_start_string="{##",  # `${#list[@]}` is shell.
        comment_end_string="##}",
    )
    environment.filters |= {"sh": _shell, "block": _block}
    try:
        return environment.from_string(text).render(values)
    except TemplateSyntaxError as error:
        raise LaunchError(
            f"line {error.lineno} of a template: {error.message}",
            code="launch.template",
            line=error.lineno,
        ) from None
    except TemplateError as error:
        raise LaunchError(
            f"invalid template: {error.message}; known names: {', '.join(sorted(values))}",
            code="launch.template",
        ) from None


def _given(value: Any) -> Any:
    if value is None:
        raise LaunchError(
            "a template uses a name that has no value here; put it between {% if NAME %} and {% endif %}",
            code="launch.template",
        )
    from jinja2 import StrictUndefined

    if isinstance(value, StrictUndefined):
        str(value)  # Raises the error for a name without a value.
    return value


def _shell(value: Any) -> Raw:
    """A value as one word of a shell."""
    return value if isinstance(value, Raw) else Raw(shlex.quote(str(_given(value))))


def _scalar(value: Any) -> Raw:
    """A value as YAML on one line."""
    if isinstance(value, Raw):
        if len(value.splitlines()) > 1 and not isinstance(value, _Block):
            raise LaunchError(
                f"a value in a script must be one line, but got {str(value)!r}",
                code="launch.option",
            )
        return value
    style = '"' if isinstance(value, str) else None
    text = yaml.safe_dump(_given(value), default_style=style, width=float("inf"))
    return Raw(text.removesuffix("...\n").rstrip("\n"))


class _Block(Raw):
    """The lines of a block scalar."""

    __slots__ = ()


def _block(text: str, indent: int) -> _Block:
    """Printable text as the lines below `key: |`."""
    return _Block("\n".join(f"{' ' * indent}{line}" for line in text.splitlines()))
