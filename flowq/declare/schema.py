"""The JSON Schema of a workflow file, for editors, derived from the tables of the reader.

`flowq schema` prints it. A schema describes shapes, not names: only `flowq check` knows whether a
job in `needs` is declared, or an expression is valid.
"""

from __future__ import annotations

from typing import Any

from flowq.declare.input_shapes import INPUT, TYPE_WORDS
from flowq.declare.keys import JOB, NESTED, WORKFLOW
from flowq.declare.shapes import Key

DIALECT = "https://json-schema.org/draft/2020-12/schema"

_JOB_NAME = "^(?!.*--)[A-Za-z_][A-Za-z0-9_-]*$"
_INPUT_NAME = "^[A-Za-z_][A-Za-z0-9_]*$"


def build_schema() -> dict[str, Any]:
    """Return the JSON Schema, draft 2020-12, of a workflow file."""
    return {
        "$schema": DIALECT,
        "title": "A flowq workflow",
        "description": "Jobs on Redis Queue (RQ), and what must run before what.",
        **_with_names(WORKFLOW.schema()),
        "$defs": {
            "job": _job(),
            "input": _input(),
            "workflow": _with_names(NESTED.schema()),
        },
    }


def _with_names(schema: dict[str, Any]) -> dict[str, Any]:
    """Add the schemas of maps whose keys are names."""
    properties = schema["properties"]
    properties["jobs"] |= _named("job", _JOB_NAME) | {"minProperties": 1}
    properties["finally"] |= _named("job", _JOB_NAME, "null")
    properties["inputs"] |= _named("input", _INPUT_NAME, "null")
    properties["workflows"] |= _named("workflow", _JOB_NAME, "null")
    return schema


def _named(what: str, pattern: str, *types: str) -> dict[str, Any]:
    return {
        "type": ["object", *types] if types else "object",
        "patternProperties": {pattern: {"$ref": f"#/$defs/{what}"}},
        "additionalProperties": False,
    }


def _job() -> dict[str, Any]:
    others = {"call": ("run", "workflow"), "run": ("call", "workflow"), "workflow": ("call", "run")}
    return {
        **JOB.schema(),
        "oneOf": [
            {"required": [key], "not": {"anyOf": [{"required": [other]} for other in rest]}}
            for key, rest in others.items()
        ],
        "if": {"required": ["run"], "properties": {"run": {"type": "array"}}},
        "then": {"properties": {"shell": False}},
        "dependentSchemas": {
            word: _beside(key) for word, key in JOB.keys.items() if key.needs or key.not_for
        },
    }


def _beside(key: Key) -> dict[str, Any]:
    """Return what a map must have, and must not have, that has this key."""
    needed = {"anyOf": [{"required": [word]} for word in key.needs]} if key.needs else {}
    others = {"not": {"anyOf": [{"required": [word]} for word in key.not_for]}}
    return {**needed, **others} if key.not_for else needed


def _input() -> dict[str, Any]:
    schema = INPUT.schema()
    enum = {"properties": {"type": {"const": "enum"}}, "required": ["type"]}
    return {
        "anyOf": [
            {"type": ["null", "boolean", "number", "array"]},
            {"type": "string", "not": {"enum": sorted(TYPE_WORDS)}},
            {
                **schema,
                "if": enum,
                "then": {"required": ["choices"]},
                "dependentSchemas": {
                    "choices": {"properties": {"type": {"enum": ["enum", "json"]}}},
                    "pattern": {"properties": {"type": {"enum": ["str", "path", "json"]}}},
                    "default": {"properties": {"required": {"const": False}}},
                },
            },
        ]
    }
