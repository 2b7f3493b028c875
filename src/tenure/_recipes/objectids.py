"""The id of the object that a call is about, made of the call's arguments."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from string import Formatter
from typing import Any

from ..errors import InvalidArgument


def deriver(
    function: Callable[..., Any], object_id: str | Callable[..., str]
) -> Callable[..., str]:
    """What makes an id of a call's arguments: a function of them, or a template with their names.

    A template that names no parameter of the function is refused here, and not at a call.
    """
    if callable(object_id):
        return object_id
    if not isinstance(object_id, str):
        raise InvalidArgument(
            f"an object id is a template such as 'port-{{port_id}}', or a function of the same"
            f" arguments, not {object_id!r}"
        )
    template = object_id
    signature = inspect.signature(function)
    for field in _fields(template):
        name = re.split(r"[.\[]", field, maxsplit=1)[0]
        if name not in signature.parameters:
            known = ", ".join(map(repr, signature.parameters)) or "none"
            raise InvalidArgument(
                f"the object id {template!r} names {name!r}, which is no parameter of"
                f" {function.__qualname__}; it has {known}"
            )

    def derive(*args: Any, **kwargs: Any) -> str:
        call = signature.bind(*args, **kwargs)
        call.apply_defaults()
        return template.format_map(call.arguments)

    return derive


def _fields(template: str) -> list[str]:
    """What stands in braces, also within a format."""
    found = []
    try:
        for _, field, format, _ in Formatter().parse(template):
            if field is not None:
                found += [field, *_fields(format or "")]
    except ValueError as error:
        raise InvalidArgument(f"the object id {template!r} is no template: {error}") from None
    return found
