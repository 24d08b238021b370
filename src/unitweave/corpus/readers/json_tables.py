"""The rows of a file that is JSON as a whole: an array, an object around one, columns, or rows by their ids."""

import json
from typing import Any


def parse_json(text: str) -> Any:
    """The value of a JSON text; of several values one after the other, as jq prints them, a list.

    Raises:
        ValueError: It is none. (RecursionError: nested too deeply.)
    """
    decoder, values, at = json.JSONDecoder(), [], 0
    while at < len(text):
        if text[at].isspace():
            at += 1
            continue
        value, at = decoder.raw_decode(text, at)
        values.append(value)
    if not values:
        raise ValueError("it is empty")
    return values[0] if len(values) == 1 else values


def json_rows(value: Any) -> list[Any]:
    """The rows that a JSON value holds; the value itself as the only row where it is no table.

    Args:
        value: An array of objects; an object in which one key has such an array (`{"data": [...]}`); an object of
            columns, as lists or as pandas writes them (`{"text": {"0": "a", "1": "b"}}`); an object of rows by ids.
    """
    if isinstance(value, list):
        return value
    if not isinstance(value, dict) or not value:
        return [value]
    parts = list(value.values())
    arrays = [part for part in parts if isinstance(part, list) and part and all(isinstance(row, dict) for row in part)]
    if len(arrays) == 1:
        return arrays[0]
    if all(isinstance(part, list) for part in parts) and len(set(map(len, parts))) == 1:
        return [dict(zip(value, row, strict=True)) for row in zip(*parts, strict=True)]
    if all(isinstance(part, dict) and part for part in parts) and all(part.keys() == parts[0].keys() for part in parts):
        if all(key.isdecimal() for key in parts[0]):
            return [{name: part[key] for name, part in value.items()} for key in parts[0]]
        if len(parts) > 1:
            return [{"id": key} | row for key, row in value.items()]
    return [value]
