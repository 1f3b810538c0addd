"""Names to objects: built-ins from a plain dict, third parties from entry points, nothing imported before it is asked
for.

>>> units = Registry(kind="unit", builtins={"ms": 1e-3}, error=KeyError)
>>> units.get("ms")
0.001
"""

import difflib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Generic, TypeVar, cast

from sparsefab.errors import SparseFabError

__all__ = ["Registration", "Registry"]

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Registration:
    """One name and where it comes from; `problem` says why it cannot be used (None = usable)."""

    name: str
    source: str
    problem: str | None


class Registry(Generic[T]):
    """Look up objects of one kind by name.

    Parameters
    ----------
    kind : str                      What an entry is called in messages: 'format', 'target'.
    builtins : Mapping[str, T]      The project's own entries; they win over plug-ins of the same name.
    group : str | None              Entry-point group of plug-ins, e.g. 'sparsefab.formats'; None takes none.
    expected : type | None          What a plug-in must be an instance of; None accepts anything.
    error : type[Exception]         Raised for an unknown name or a plug-in that does not load.
    """

    def __init__(
        self,
        *,
        kind: str,
        builtins: Mapping[str, T],
        group: str | None = None,
        expected: type | None = None,
        error: type[Exception] = SparseFabError,
    ) -> None:
        self._kind = kind
        self._builtins = dict(builtins)
        self._group = group
        self._expected = expected
        self._error = error
        self._loaded: dict[str, T] = {}

    def names(self) -> tuple[str, ...]:
        """All names, built-ins first in their own order, then plug-ins by name; imports no plug-in."""
        return (*self._builtins, *(name for name in sorted(self._plugins()) if name not in self._builtins))

    def get(self, name: str) -> T:
        """Return the object called `name`, importing its plug-in if need be.

        Raises
        ------
        error               If no entry has that name, or its plug-in fails to import or is of the wrong kind.
        """
        if name in self._builtins:
            return self._builtins[name]
        if name in self._loaded:
            return self._loaded[name]
        point = self._plugins().get(name)
        if point is None:
            near = difflib.get_close_matches(name, self.names(), n=3)
            remedy = f"did you mean {' or '.join(near)}?" if near else f"known: {', '.join(self.names()) or 'none'}"
            raise self._error(f"unknown {self._kind} {name!r}; {remedy}")
        value, problem = self._try(point)
        if problem is not None:
            raise self._error(f"{self._kind} {name!r} from {_origin(point)} cannot be used: {problem}")
        self._loaded[name] = cast(T, value)
        return self._loaded[name]

    def listing(self) -> list[Registration]:
        """Every entry with its source; plug-ins are imported to learn whether they work, and nothing raises."""
        rows = [Registration(name=name, source="built in", problem=None) for name in self._builtins]
        taken = set(self._builtins)
        for point in self._points():
            if point.name in taken:
                problem: str | None = f"the name is taken by another {self._kind}"
            else:
                problem = self._try(point)[1]
            taken.add(point.name)
            rows.append(Registration(name=point.name, source=_origin(point), problem=problem))
        return rows

    def __contains__(self, name: object) -> bool:
        return name in self._builtins or name in self._plugins()

    def __iter__(self) -> Iterator[str]:
        return iter(self.names())

    def _points(self) -> list[EntryPoint]:
        found = entry_points(group=self._group) if self._group else ()
        return sorted(found, key=lambda point: (point.name, _origin(point)))

    def _plugins(self) -> dict[str, EntryPoint]:
        """The first entry point of each name, in the order of `_points`."""
        return {point.name: point for point in reversed(self._points())}

    def _try(self, point: EntryPoint) -> tuple[object, str | None]:
        """Import a plug-in; whatever goes wrong inside it becomes its reason, since it is not our code."""
        try:
            value = point.load()
        except Exception as error:  # third-party code may raise anything
            return None, f"{type(error).__name__}: {error}"
        if self._expected is not None and not isinstance(value, self._expected):
            return None, f"{point.value} is a {type(value).__name__}, not a {self._expected.__name__}"
        return value, None


def _origin(point: EntryPoint) -> str:
    return f"{point.dist.name} {point.dist.version}" if point.dist is not None else point.value
