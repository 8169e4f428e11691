"""Judges what was read by its shape, fills dataclasses from it, and tells in our words what does not fit.

Dataclasses that belong to others (the policy, the settings of an adapter) are filled by :func:`fill`, which
understands durations and addresses wherever a field has the type for it.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Collection, Mapping
from datetime import date
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

from pydantic import BaseModel, TypeAdapter, ValidationError
from pydantic_core import ErrorDetails

from proxyroute.config_secrets import KINDS, Secret
from proxyroute.config_shape import (
    EXAMPLES,
    SECRET_HELP,
    SecretShape,
    as_list,
    numbers_as_text,
    parse_address,
    parse_duration,
)
from proxyroute.config_yaml import Document, Where
from proxyroute.model import Address

T = TypeVar("T")


_WORDS = {
    "string_type": "must be text",
    "string_too_short": "must not be empty",
    "model_type": "must be a mapping",
    "model_attributes_type": "must be a mapping",
    "dataclass_type": "must be a mapping",
    "dict_type": "must be a mapping",
    "list_type": "must be a list",
    "tuple_type": "must be a list",
    "too_short": "must not be empty",
    "bool_type": "must be true or false",
    "bool_parsing": "must be true or false",
    "int_type": "must be a whole number",
    "int_parsing": "must be a whole number",
    "int_from_float": "must be a whole number",
    "float_type": "must be a number",
    "path_type": "must be a path",
    "finite_number": "must be a finite number",
}


def secret_of(shape: SecretShape, base: Path) -> Secret:
    """Returns the secret that ``shape`` names; a relative path starts at ``base``."""
    kind = next(kind for kind in KINDS if getattr(shape, kind))
    source = getattr(shape, kind)
    return Secret(kind, str(base / source) if kind == "file" else source)


def check_shape(shape: type[BaseModel], values: object, document: Document, where: Where = ()) -> None:
    """Notes in ``document`` everything about ``values`` that does not fit ``shape``."""
    try:
        shape.model_validate(values)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            _tell(detail, _known(shape, detail["loc"][:-1]), document, where)


def _tell(detail: ErrorDetails, known: Collection[str], document: Document, where: Where) -> None:
    """Notes one pydantic error in our words. Never repeats the value: it may be a secret."""
    here = (*where, *detail["loc"])
    example = EXAMPLES.get(str(here[-1]) if here else "", "")
    kind = detail["type"]
    if kind in ("list_type", "tuple_type") and "{" in example:  # of a field that elsewhere is a mapping
        example = f"{here[-1]}: [NAME]"
    if kind == "extra_forbidden":
        document.unknown(here, known)
    elif kind == "missing":
        document.report(here, f"is missing; write {example}" if example else "is missing")
    elif kind == "said":
        document.report(here, detail["msg"])
    elif kind == "literal_error":
        document.report(here, f"must be {detail['ctx']['expected']}")
    elif kind == "value_error":
        text = detail["msg"].removeprefix("Value error, ")
        field, colon, rest = text.partition(": ")  # a dataclass that judges itself can only name its field so
        document.report(*(((*here, field), rest) if colon and field in known else (here, text)))
    elif kind == "string_type" and isinstance(detail["input"], bool | int | float | date):
        document.report(here, "must be text; put it into quotes")
    else:
        text = _WORDS.get(kind) or detail["msg"]
        document.report(here, f"{text}; write {example}" if example else text)


def _known(shape: Any, where: tuple[int | str, ...]) -> list[str]:
    """Returns the fields that exist at ``where`` below ``shape``."""
    if isinstance(shape, type) and issubclass(shape, BaseModel):
        if not where:
            return [field.alias or name for name, field in shape.model_fields.items()]
        for name, field in shape.model_fields.items():
            if where[0] in (name, field.alias):
                return _known(field.annotation, where[1:])
        return []
    options = get_args(shape)
    if get_origin(shape) in (dict, list, tuple):
        return _known(options[-1], where[1:])
    return next((found for option in options if (found := _known(option, where))), [])


def fill(
    cls: type[T], values: Mapping[str, Any], document: Document, where: Where, *, hidden: Collection[str] = ()
) -> T | None:
    """Builds the dataclass ``cls`` from ``values``, or notes in ``document`` why not and returns None.

    A ``float`` field is a duration in seconds and takes ``3s``; an ``Address`` takes ``host:port``; a
    relative ``Path`` starts at the configuration's directory; a ``Secret`` is a reference to one. Fields in ``hidden``
    cannot be set.
    """
    hints = get_type_hints(cls)
    known = [f.name for f in dataclasses.fields(cls) if f.init and f.name not in hidden]  # type: ignore[arg-type]
    before = len(document.problems)
    given: dict[str, Any] = {}
    for key, value in values.items():
        if key not in known:
            document.unknown((*where, key), known)
        elif value is not None and Secret in {hints[key], *get_args(hints[key])}:
            check_shape(SecretShape, value, document, (*where, key))
            if len(document.problems) == before:
                given[key] = secret_of(SecretShape.model_validate(value), document.base)
        elif value is not None:
            try:
                given[key] = _coerce(hints[key], value, document.base)
            except ValueError as error:
                document.report((*where, key), str(error))
    noted = len(document.problems) > before
    try:
        built = TypeAdapter(cls).validate_python(given)
    except ValidationError as error:
        for detail in error.errors(include_url=False):
            if not (noted and detail["type"] == "missing"):  # what is misspelt is not missing as well
                _tell(detail, known, document, where)
        return None
    return None if noted else built


def _coerce(hint: Any, value: Any, base: Path) -> Any:
    """Turns what people write into what a field of type ``hint`` takes. Raises ValueError."""
    kinds = {hint, *get_args(hint)}
    if Secret in kinds:
        return _secret(value, base)
    if float in kinds:
        return parse_duration(value)
    if Address in kinds and isinstance(value, str):
        return parse_address(value)
    if Path in kinds and isinstance(value, str):
        return base / value
    is_list = hint if get_origin(hint) is tuple else next((k for k in kinds if get_origin(k) is tuple), None)
    if is_list is not None and str in get_args(is_list):
        return _strings(value)
    return value


def _secret(value: Any, base: Path) -> Secret:
    """Returns where a secret is. Raises ValueError, which never repeats what was written."""
    try:
        shape = SecretShape.model_validate(value)
    except ValidationError as error:
        detail = error.errors(include_url=False, include_input=False)[0]
        raise ValueError(detail["msg"] if detail["type"] == "said" else f"is not a secret; {SECRET_HELP}") from None
    return secret_of(shape, base)


def _strings(value: Any) -> Any:
    if isinstance(value, str):
        raise ValueError(as_list(value))
    if isinstance(value, list):
        return numbers_as_text(value)
    return value
