"""YAML with a memory for lines: plain values, and for each the line it stands on.

PyYAML's constructors forget where a value came from and silently let the second of two equal keys win. Both
matter in a file that people edit by hand, so the node tree is walked here instead. And to YAML 1.1 ``0755`` and the
hardware address ``52:54:00:12:34:56`` are numbers: where they are meant as text, they are the text that was written.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml

from proxyroute.errors import ConfigError

Where = tuple[str | int, ...]
"""Path of a value: keys and list indices from the top."""

_MERGE = "tag:yaml.org,2002:merge"


@dataclass(frozen=True)
class Problem:
    """One mistake in a configuration. ``line`` is 0 when the values did not come from a file."""

    file: str
    line: int
    field: str
    text: str

    def __str__(self) -> str:
        place = f"{self.file}:{self.line}" if self.line else self.file
        return f"{place}: {self.field}: {self.text}" if self.field else f"{place}: {self.text}"


class InvalidConfig(ConfigError):
    """The configuration has mistakes; ``problems`` holds all of them, in the order of their lines."""

    def __init__(self, problems: Iterable[Problem]) -> None:
        self.problems = tuple(sorted(set(problems), key=lambda p: (p.file, p.line, p.field)))
        super().__init__("\n".join(str(problem) for problem in self.problems))


@dataclass
class Document:
    """Values of a configuration, where each came from, and what is wrong with them so far."""

    file: str
    base: Path
    """Relative paths in the file start here."""
    values: Any = None
    lines: dict[Where, int] = field(default_factory=dict)
    problems: list[Problem] = field(default_factory=list)

    def report(self, where: Where, text: str) -> None:
        """Notes a mistake at ``where``, or, when nothing stands there, at the nearest value around it."""
        line = next((self.lines[where[:n]] for n in range(len(where), -1, -1) if where[:n] in self.lines), 0)
        self.problems.append(Problem(self.file, line, dotted(where), text))

    def unknown(self, where: Where, known: Iterable[str]) -> None:
        """Notes a field that does not exist, with the name that was probably meant."""
        self.report(where, f"is not known here; {suggest(str(where[-1]), known)}")

    def finish(self) -> None:
        """Raises InvalidConfig when anything was noted."""
        if self.problems:
            raise InvalidConfig(self.problems)


class _Number:
    """A number of which ``str`` returns what was written."""

    written = ""

    def __repr__(self) -> str:
        return self.written


class _Int(_Number, int):
    pass


class _Float(_Number, float):
    pass


def dotted(where: Where) -> str:
    """Returns a path as people write it: ``clusters.shop.proxies[0].name``."""
    text = ""
    for part in where:
        text += f"[{part}]" if isinstance(part, int) else f".{part}" if text else part
    return text


def suggest(name: str, known: Iterable[str]) -> str:
    """Returns "did you mean X?" for a near miss, else the list of what there is."""
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    if near:
        return f"did you mean {near[0]}?"
    return f"known are {', '.join(names)}" if names else "nothing is known here"


def read_document(path: Path) -> Document:
    """Reads ``path``. Raises ConfigError when it cannot be read, InvalidConfig when it is not proper YAML."""
    try:
        text = path.read_text(encoding="utf-8")
    except FileNotFoundError:
        raise ConfigError(
            f"there is no configuration file {path}; write one with\n"
            f"  proxyroute init --config {path} --server HOST:PORT --user USER\n"
            "or name yours with --config FILE or PROXYROUTE_CONFIG"
        ) from None
    except UnicodeDecodeError as error:
        raise ConfigError(f"{path} is not UTF-8 text: byte {error.start} is not valid") from None
    except OSError as error:
        raise ConfigError(f"{path} cannot be read: {error.strerror}") from None
    document = Document(file=str(path), base=path.absolute().parent)
    try:
        node = yaml.compose(text, Loader=yaml.SafeLoader)
        document.values = {} if node is None else _Walk(document).value(node, ())
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark or error.context_mark
        line = mark.line + 1 if mark else 0
        what = " ".join(part for part in (error.context, error.problem) if part)
        raise InvalidConfig([Problem(str(path), line, "", f"is not proper YAML: {what}")]) from None
    except yaml.YAMLError as error:
        raise InvalidConfig([Problem(str(path), 0, "", f"is not proper YAML: {error}")]) from None
    except RecursionError:
        raise InvalidConfig([Problem(str(path), 0, "", "nests deeper than can be read; nothing here has to")]) from None
    document.lines.setdefault((), 1)
    document.finish()
    return document


class _Walk:
    """Turns nodes into values and notes lines and duplicate keys on the way."""

    def __init__(self, document: Document) -> None:
        self._document = document
        self._constructor = yaml.constructor.SafeConstructor()
        self._open: list[yaml.Node] = []

    def value(self, node: yaml.Node, where: Where) -> Any:
        self._document.lines.setdefault(where, node.start_mark.line + 1)
        if any(node is parent for parent in self._open):
            self._document.report(where, "contains itself through an alias; write it out")
            return None
        self._open.append(node)
        try:
            if isinstance(node, yaml.MappingNode):
                return self._mapping(node, where)
            if isinstance(node, yaml.SequenceNode):
                return [self.value(item, (*where, n)) for n, item in enumerate(node.value)]
            return self._scalar(node, where)
        finally:
            self._open.pop()

    def _scalar(self, node: yaml.Node, where: Where) -> Any:
        try:
            return _as_written(self._constructor.construct_object(node), node.value)
        except (yaml.YAMLError, ValueError) as error:
            what = getattr(error, "problem", None) or str(error)
            self._document.report(where, f"is not a plain value: {what}; put it into quotes")
            return None

    def _mapping(self, node: yaml.MappingNode, where: Where) -> dict[str, Any]:
        result: dict[str, Any] = {}
        merged: list[yaml.Node] = []
        first: dict[str, int] = {}
        for key, value in node.value:
            if key.tag == _MERGE:
                merged.extend(value.value if isinstance(value, yaml.SequenceNode) else [value])
                continue
            if not isinstance(key, yaml.ScalarNode):
                self._document.report(where, "has a key that is not plain text")
                continue
            line = key.start_mark.line + 1
            here = (*where, key.value)
            if key.value in first:
                text = f"stands here for the second time, first in line {first[key.value]}; remove one of them"
                self._document.problems.append(Problem(self._document.file, line, dotted(here), text))
                continue
            first[key.value] = line
            self._document.lines.setdefault(here, line)
            result[key.value] = self.value(value, here)
        for source in merged:
            extra = self.value(source, where)
            if not isinstance(extra, Mapping):
                self._document.report(where, "merges (<<) something that is not a mapping")
                continue
            for name, item in extra.items():
                result.setdefault(name, item)
        return result


def _as_written(value: Any, text: str) -> Any:
    """Returns ``value``; a number that is not written as we would, with its ``text``."""
    kind = {int: _Int, float: _Float}.get(type(value))
    if kind is None or str(value) == text:
        return value
    number = kind(value)
    number.written = text
    return number
