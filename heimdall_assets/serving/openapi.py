"""The OpenAPI document (3.1), made from the models that read requests and describe answers.

Belongs here: addresses, statuses, which model stands where. Does not belong here: the models (``serving.bodies``,
``serving.answered``).
"""

from typing import Any

from pydantic import BaseModel
from pydantic.json_schema import models_json_schema

from heimdall_assets.serving.answered import Located, Models, Refused, Shadows, State
from heimdall_assets.serving.bodies import AskedSession

_REFERENCE = "#/components/schemas/{model}"
_READS: tuple[type[BaseModel], ...] = (AskedSession,)
_WRITES: tuple[type[BaseModel], ...] = (Located, Refused, Models, Shadows, State)

REFUSALS = {
    400: "the body is not what its header says",
    401: "no key that counts",
    408: "the body did not come in time",
    413: "the body is too large",
    415: "another content type",
    422: "a value cannot be used, or no honest position follows from them",
    503: "too many requests, or no model can answer now; Retry-After says when to ask again",
    504: "no answer in time",
}


def build_document() -> dict[str, Any]:
    """Return the document as JSON values."""
    inputs = [(model, "validation") for model in _READS]
    outputs = [(model, "serialization") for model in _WRITES]
    _, schemas = models_json_schema([*inputs, *outputs], ref_template=_REFERENCE)  # type: ignore[list-item]
    return {
        "openapi": "3.1.0",
        "info": {
            "title": "Heimdall Assets",
            "version": "1",
            "summary": "Where released models put the transmitter that receivers heard.",
            "license": {"name": "Apache-2.0", "identifier": "Apache-2.0"},
        },
        "security": [{}, {"key": []}],
        "paths": {
            "/v1/locate": {"post": _locate()},
            "/v1/models": {"get": _read("which released models answer whom now", Models)},
            "/v1/shadow": {"get": _read("what the shadow would have answered, compared", Shadows)},
            "/healthz": {"get": _read("whether the process lives", State)},
            "/readyz": {"get": _read("whether the champion can answer", State)},
            "/metrics": {"get": _read_text("counts and times for Prometheus")},
            "/openapi.json": {"get": _read_any("this document")},
        },
        "components": {
            "schemas": schemas["$defs"],
            "securitySchemes": {"key": {"type": "http", "scheme": "bearer"}},
        },
    }


def _locate() -> dict[str, Any]:
    form = {
        "type": "object",
        "required": ["session"],
        "properties": {"session": _refer(AskedSession)},
        "additionalProperties": {"type": "string", "contentMediaType": "application/octet-stream"},
        "description": "session as JSON, and a part with a file for each receiver that has a recording",
    }
    content = {"application/json": {"schema": _refer(AskedSession)}, "multipart/form-data": {"schema": form}}
    answers = {"200": _answer("the position", Located)}
    answers |= {str(status): _answer(why, Refused) for status, why in REFUSALS.items()}
    return {
        "operationId": "locate",
        "summary": "locate the one transmission that receivers heard",
        "requestBody": {"required": True, "content": content},
        "responses": answers,
    }


def _read(summary: str, model: type[BaseModel]) -> dict[str, Any]:
    answers = {"200": _answer(summary, model), "default": _answer("why not", Refused)}
    return {"summary": summary, "responses": answers}


def _read_text(summary: str) -> dict[str, Any]:
    content = {"text/plain": {"schema": {"type": "string"}}}
    answers = {"200": {"description": summary, "content": content}, "default": _answer("why not", Refused)}
    return {"summary": summary, "responses": answers}


def _read_any(summary: str) -> dict[str, Any]:
    content = {"application/json": {"schema": {"type": "object"}}}
    return {"summary": summary, "responses": {"200": {"description": summary, "content": content}}}


def _answer(description: str, model: type[BaseModel]) -> dict[str, Any]:
    return {"description": description, "content": {"application/json": {"schema": _refer(model)}}}


def _refer(model: type[BaseModel]) -> dict[str, str]:
    return {"$ref": _REFERENCE.format(model=model.__name__)}
