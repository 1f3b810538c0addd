"""TOML files into frozen dataclasses, checked key by key.

Every file that a user or the project writes (recipes, devices, workloads, search spaces, runs) is read here and only
here, so that an unknown key, a wrong type or a missing value is always the same kind of error and names the same
things: the file and the dotted key.

Supported field types: bool, int, float (an integer is accepted), str, Path, Literal, `X | None`, unions of those,
tuple[X, ...], tuple[X, Y], dict[str, X] and other dataclasses. `load` and `dumps` are inverse to one another.
"""

import dataclasses
import difflib
import math
import tomllib
import types
import typing
from collections.abc import Mapping
from functools import lru_cache
from pathlib import Path
from typing import TypeVar

from sparsefab.errors import ConfigError

__all__ = ["build", "dumps", "load", "loads"]

T = TypeVar("T")


def load(path: str | Path, kind: type[T]) -> T:
    """Read a TOML file into a dataclass.

    Parameters
    ----------
    path : str | Path       A UTF-8 TOML file.
    kind : type[T]          The dataclass it describes.

    Raises
    ------
    ConfigError             If the file cannot be read or parsed, or does not match `kind`; names the file and the key.
    """
    try:
        text = Path(path).read_bytes().decode("utf-8")
    except OSError as error:
        raise ConfigError(f"{path}: cannot be read: {error.strerror or error}") from error
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path}: not UTF-8 text, so not TOML ({error.reason} at byte {error.start})") from error
    return loads(text, kind, source=str(path))


def loads(text: str, kind: type[T], *, source: str = "<text>") -> T:
    """Parse TOML text into a dataclass; `source` is what error messages call it."""
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise ConfigError(f"{source}: not valid TOML: {error}") from error
    except RecursionError as error:
        raise ConfigError(f"{source}: nested too deeply to be a configuration") from error
    return build(table, kind, source=source)


def build(table: Mapping[str, object], kind: type[T], *, source: str = "<table>") -> T:
    """Make a dataclass from a parsed table, checking every key and value against the field types."""
    if not dataclasses.is_dataclass(kind):
        raise TypeError(f"kind must be a dataclass, not {kind!r}")
    return typing.cast(T, _table(table, kind, source, ""))


def dumps(value: object) -> str:
    """Write a dataclass as TOML text that `loads` reads back to an equal value. None fields are left out."""
    if not dataclasses.is_dataclass(value) or isinstance(value, type):
        raise TypeError(f"value must be a dataclass instance, not {type(value).__name__}")
    lines: list[str] = []
    _write_table(lines, "", _fields_of(value))
    return "\n".join(lines).lstrip("\n") + "\n"


@lru_cache(maxsize=256)
def _hints(kind: type) -> dict[str, object]:
    return typing.get_type_hints(kind)


def _join(key: str, name: str) -> str:
    return f"{key}.{name}" if key else name


def _fail(source: str, key: str, problem: str) -> ConfigError:
    return ConfigError(f"{source}: {key}: {problem}" if key else f"{source}: {problem}")


def _table(table: Mapping[str, object], kind: type, source: str, key: str) -> object:
    fields = {field.name: field for field in dataclasses.fields(kind) if field.init}
    for name in table:
        if name not in fields:
            near = difflib.get_close_matches(name, fields, n=1)
            remedy = f"did you mean {near[0]!r}?" if near else f"known keys: {', '.join(sorted(fields))}"
            raise _fail(source, _join(key, name), f"unknown key; {remedy}")
    values: dict[str, object] = {}
    for name, field in fields.items():
        if name in table:
            values[name] = _value(table[name], _hints(kind)[name], source, _join(key, name))
        elif field.default is dataclasses.MISSING and field.default_factory is dataclasses.MISSING:
            raise _fail(source, _join(key, name), "missing")
    try:
        return kind(**values)
    except (ValueError, TypeError) as error:
        raise _fail(source, key, str(error)) from error


def _value(value: object, hint: typing.Any, source: str, key: str) -> object:
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if hint is typing.Any or hint is object:
        return value
    if origin is typing.Literal:
        for choice in arguments:
            if type(choice) is type(value) and choice == value:
                return value
        raise _fail(source, key, f"must be one of {', '.join(repr(choice) for choice in arguments)}, not {value!r}")
    if origin in (typing.Union, types.UnionType):
        return _union(value, arguments, source, key)
    if origin is tuple:
        return _sequence(value, arguments, source, key)
    if origin in (dict, Mapping):
        if not isinstance(value, dict):
            raise _wrong(value, "a table", source, key)
        return {name: _value(item, arguments[1], source, _join(key, name)) for name, item in value.items()}
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, dict):
            raise _wrong(value, "a table", source, key)
        return _table(value, typing.cast(type, hint), source, key)
    return _scalar(value, hint, source, key)


def _scalar(value: object, hint: typing.Any, source: str, key: str) -> object:
    if hint is float and isinstance(value, int | float) and not isinstance(value, bool):
        if not math.isfinite(value):
            raise _fail(source, key, f"must be a finite number, not {value}")
        return float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    if hint in (bool, int, str) and type(value) is hint:
        return value
    names = {bool: "true or false", int: "an integer", float: "a number", str: "a string", Path: "a path in quotes"}
    if hint not in names:
        raise TypeError(f"{key}: config cannot read fields of type {hint!r}")
    raise _wrong(value, names[hint], source, key)


def _union(value: object, choices: tuple[object, ...], source: str, key: str) -> object:
    """Take the first choice that reads the value; with one choice beside None, its own error is the useful one."""
    choices = tuple(choice for choice in choices if choice is not type(None))
    errors: list[ConfigError] = []
    for choice in choices:
        try:
            return _value(value, choice, source, key)
        except ConfigError as error:
            errors.append(error)
    if len(errors) == 1:
        raise errors[0]
    raise _fail(source, key, "fits none of the forms allowed here: " + "; ".join(str(error) for error in errors))


def _sequence(value: object, arguments: tuple[object, ...], source: str, key: str) -> tuple[object, ...]:
    if not isinstance(value, list):
        raise _wrong(value, "an array", source, key)
    if len(arguments) == 2 and arguments[1] is Ellipsis:
        arguments = (arguments[0],) * len(value)
    if len(value) != len(arguments):
        raise _fail(source, key, f"must have {len(arguments)} values, not {len(value)}")
    pairs = enumerate(zip(value, arguments, strict=True))
    return tuple(_value(item, hint, source, f"{key}[{index}]") for index, (item, hint) in pairs)


def _wrong(value: object, wanted: str, source: str, key: str) -> ConfigError:
    shown = repr(value)
    return _fail(source, key, f"must be {wanted}, not {shown if len(shown) <= 40 else type(value).__name__}")


def _fields_of(value: object) -> dict[str, object]:
    fields = dataclasses.fields(typing.cast(typing.Any, value))
    return {field.name: getattr(value, field.name) for field in fields if field.init}


def _is_table(value: object) -> bool:
    return isinstance(value, Mapping) or (dataclasses.is_dataclass(value) and not isinstance(value, type))


def _is_table_array(value: object) -> bool:
    return isinstance(value, tuple | list) and len(value) > 0 and all(_is_table(item) for item in value)


def _items(value: object) -> dict[str, object]:
    return dict(value) if isinstance(value, Mapping) else _fields_of(value)


def _write_table(lines: list[str], prefix: str, items: Mapping[str, object]) -> None:
    """Scalars first, then sub-tables: a scalar after a [table] header would belong to that table."""
    present = {name: item for name, item in items.items() if item is not None}
    for name, item in present.items():
        if not _is_table(item) and not _is_table_array(item):
            lines.append(f"{_bare(name)} = {_inline(item)}")
    for name, item in present.items():
        path = _join(prefix, _bare(name))
        if _is_table(item):
            lines += ["", f"[{path}]"]
            _write_table(lines, path, _items(item))
        elif _is_table_array(item):
            for entry in typing.cast(tuple[object, ...], item):
                lines += ["", f"[[{path}]]"]
                _write_table(lines, path, _items(entry))


def _bare(name: str) -> str:
    plain = name.isascii() and name.replace("_", "").replace("-", "").isalnum()
    return name if plain else _quoted(name)


def _quoted(text: str) -> str:
    escapes = {'"': '\\"', "\\": "\\\\", "\n": "\\n", "\t": "\\t", "\r": "\\r"}
    hidden = (f"\\u{ord(char):04x}" if ord(char) < 32 or ord(char) == 127 else char for char in text)
    return '"' + "".join(escapes.get(raw, shown) for raw, shown in zip(text, hidden, strict=True)) + '"'


def _inline(value: object) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int | float):
        return repr(value)
    if isinstance(value, str | Path):
        return _quoted(str(value))
    if isinstance(value, tuple | list):
        return "[" + ", ".join(_inline(item) for item in value) + "]"
    if _is_table(value):
        present = {name: item for name, item in _items(value).items() if item is not None}
        return "{" + ", ".join(f"{_bare(name)} = {_inline(item)}" for name, item in present.items()) + "}"
    raise TypeError(f"cannot write a value of type {type(value).__name__} as TOML")
