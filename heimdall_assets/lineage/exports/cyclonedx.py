"""CycloneDX: the bill of materials of a released model, with its model card.

The model is the component that the document is about; its parts are the files of the release. Beside it stand the data
that it was made of and the packages of the environment that it was trained in.

Source: CycloneDX 1.7 (ECMA-424). Written by hand: the library of that name has no model card yet (11.12).
"""

import re
from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

from heimdall_assets.kinds import TRAINED_CHECKPOINT
from heimdall_assets.lineage.exports.released import (
    Released,
    encode_document,
    list_figures,
    make_uuid,
    show_number,
    split_packages,
)

SPEC_VERSION = "1.7"
MODEL_FILE = "model.onnx"


def encode_cyclonedx(released: Released) -> bytes:
    """Return a CycloneDX document, JSON."""
    facts = released.nodes[TRAINED_CHECKPOINT]["facts"] if TRAINED_CHECKPOINT in released.nodes else None
    environment = released.find_environment(facts)
    data = _list_data(released)
    packages = [_describe_package(name, version) for name, version in split_packages(environment)]
    model = _describe_model(released, environment, data)
    return encode_document(
        {
            "$schema": f"http://cyclonedx.org/schema/bom-{SPEC_VERSION}.schema.json",
            "bomFormat": "CycloneDX",
            "specVersion": SPEC_VERSION,
            "serialNumber": f"urn:uuid:{make_uuid('cyclonedx', released.files['provenance.json'])}",
            "version": 1,
            "metadata": {"timestamp": released.provenance["released"]["started_at"], "component": model},
            "components": [*data, *packages],
            "dependencies": [{"ref": model["bom-ref"], "dependsOn": [part["bom-ref"] for part in (*data, *packages)]}],
        }
    )


def _describe_model(released: Released, environment: Mapping[str, Any], data: list[dict[str, Any]]) -> dict[str, Any]:
    provenance = released.provenance
    files = [
        {"type": "file", "bom-ref": f"file:{name}", "name": name, "hashes": _hash(digest)}
        for name, digest in sorted(released.files.items())
    ]
    commit = environment.get("git_sha")
    settings = {
        f"{spec}.{name}": value for spec, fields in provenance["specs"].items() for name, value in fields.items()
    }
    return {
        "type": "machine-learning-model",
        "bom-ref": f"model:{released.version}",
        "name": "heimdall-assets model",
        "version": released.version,
        "hashes": _hash(released.files[MODEL_FILE]),
        **({"pedigree": {"commits": [{"uid": commit}]}} if commit else {}),
        "modelCard": {
            "modelParameters": {"datasets": [{"ref": part["bom-ref"]} for part in data]},
            "quantitativeAnalysis": {"performanceMetrics": _list_metrics(provenance["metrics"])},
        },
        "components": files,
        "properties": [
            *_list_properties("heimdall:manifest", provenance["model"]["manifests"]),
            *_list_properties("heimdall:setting", settings),
            *_list_properties(
                "heimdall:trained", {name: environment.get(name) for name in ("code_sha256", "git_dirty")}
            ),
        ],
    }


def _list_metrics(metrics: Mapping[str, Any]) -> list[dict[str, str]]:
    """Return each figure by its name, and as its slice the keys before it: whose figure it is where not the model's."""
    return [
        {"type": keys[-1], "value": show_number(number), **({"slice": " ".join(keys[:-1])} if keys[1:] else {})}
        for keys, number in list_figures(metrics)
    ]


def _list_data(released: Released) -> list[dict[str, Any]]:
    nodes = released.nodes
    return [
        {
            "type": "data",
            "bom-ref": f"data:{kind}/{name}",
            "name": f"{kind} {name}",
            "mime-type": artifact["media_type"],
            "hashes": _hash(artifact["digest"]),
            "data": [{"type": "dataset", "name": f"{kind} {name}"}],
            "properties": _list_properties("heimdall", {"manifest": nodes[kind]["digest"], "size": artifact["size"]}),
        }
        for kind, name, artifact in released.list_data()
    ]


def _describe_package(name: str, version: str) -> dict[str, Any]:
    purl = f"pkg:pypi/{re.sub(r'[-_.]+', '-', name).lower()}@{quote(version, safe='')}"
    return {"type": "library", "bom-ref": purl, "name": name, "version": version, "purl": purl}


def _list_properties(space: str, values: Mapping[str, Any]) -> list[dict[str, str]]:
    return [
        {"name": f"{space}:{name}", "value": show_number(value)} for name, value in values.items() if value is not None
    ]


def _hash(digest: str) -> list[dict[str, str]]:
    return [{"alg": "SHA-256", "content": digest}]
