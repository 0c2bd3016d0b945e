"""One `Registry` class for every extension point: criteria, operator rules, targets.

Registering twice is an error that names both places; looking up an unknown name is an
`UnknownNameError` with close matches.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator
from typing import Generic, TypeVar

from srr_onnx.errors import UnknownNameError

K = TypeVar("K", bound=Hashable)
T = TypeVar("T")


class Registry(Generic[K, T]):
    """A named table of extensions, filled by decorators at import.

    Args:
        kind: What the entries are, as it appears in messages ("criterion").
    """

    def __init__(self, kind: str) -> None:
        self.kind = kind
        self._entries: dict[K, T] = {}

    def register(self, *keys: K) -> Callable[[T], T]:
        """Return a decorator that enters an object under every given key.

        Args:
            keys: Names; one object may serve several.

        Returns:
            The decorator; it gives the object back unchanged.

        Raises:
            ValueError: A key is taken; the message names both objects.
        """

        def enter(entry: T) -> T:
            for key in keys:
                if key in self._entries:
                    raise ValueError(f"{self.kind} {key!r} is registered twice: {self._entries[key]!r} and {entry!r}")
                self._entries[key] = entry
            return entry

        return enter

    def get(self, key: K) -> T:
        """Look an entry up.

        Args:
            key: Its name.

        Returns:
            The registered object.

        Raises:
            UnknownNameError: Nothing has this name; carries close matches.
        """
        if key not in self._entries:
            raise UnknownNameError(self.kind, str(key), map(str, self._entries))
        return self._entries[key]

    def find(self, key: K) -> T | None:
        """Look an entry up, None where there is none."""
        return self._entries.get(key)

    def __iter__(self) -> Iterator[K]:
        return iter(self._entries)

    def __contains__(self, key: object) -> bool:
        return key in self._entries

    def __len__(self) -> int:
        return len(self._entries)
