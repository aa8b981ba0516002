"""Reading YAML files of any content: objects of it, or the error that says why there are none."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import yaml
from yaml.constructor import ConstructorError

from modbot.errors import InputError

MAX_NUMBER = 1_000
"""Characters of a number: YAML also writes them in base 60, of which a long one takes minutes to work out."""

_MAX_TEXT = 200


class NotYamlError(Exception):
    """No YAML; the text says why, in one line."""


def read_at_most(path: Path, size: int) -> bytes:
    """The file's first bytes, or all where there are fewer, so that one without end takes no memory. Raises OSError."""
    with path.open("rb") as data:
        return data.read(size)


def read_yaml(path: Path, most: int) -> Any:  # noqa: ANN401 - YAML of unknown shape
    """What a YAML file of at most so many bytes holds, as plain objects.

    Raises:
        FileNotFoundError: there is none.
        InputError: it cannot be read, is larger, or no YAML.
    """
    try:
        return load_yaml(read_limited(path, most))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise InputError(f"cannot be read ({error.strerror})", where=str(path)) from None
    except NotYamlError as error:
        raise InputError(f"no YAML ({error})", where=str(path)) from None


def read_limited(path: Path, most: int) -> bytes:
    """The bytes of a file of at most so many. Raises OSError, and InputError where there are more."""
    source = read_at_most(path, most + 1)
    if len(source) > most:
        raise InputError(f"larger than {most // 1024**2} MiB", where=str(path))
    return source


def load_yaml(source: bytes) -> Any:  # noqa: ANN401 - YAML of unknown shape
    """The YAML as plain objects; raises `NotYamlError` if it is none, whatever it holds."""
    try:
        return yaml.load(source, Loader=_Loader)  # noqa: S506 - a safe one
    except _NO_YAML as error:
        raise NotYamlError(" ".join(str(error).split())[:_MAX_TEXT]) from None


_NO_YAML = (yaml.YAMLError, RecursionError, ValueError, ArithmeticError, LookupError, AttributeError)
"""The last four come of a tag that its text does not fit, such as `!!bool maybe`."""


class _Loader(yaml.CSafeLoader):
    """Five times as fast as `safe_load`, and quick with long numbers as well."""

    def construct_yaml_int(self, node: yaml.ScalarNode) -> int:
        _check_length(node)
        return super().construct_yaml_int(node)

    def construct_yaml_float(self, node: yaml.ScalarNode) -> float:
        _check_length(node)
        return super().construct_yaml_float(node)


_Loader.add_constructor("tag:yaml.org,2002:int", _Loader.construct_yaml_int)
_Loader.add_constructor("tag:yaml.org,2002:float", _Loader.construct_yaml_float)


def _check_length(node: yaml.ScalarNode) -> None:
    if len(node.value) > MAX_NUMBER:
        raise ConstructorError(None, None, f"a number of more than {MAX_NUMBER} characters", node.start_mark)
