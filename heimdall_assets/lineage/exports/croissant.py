"""Croissant: the data behind a released model, as JSON-LD that tools for data sets read.

Each table and listing that the manifests of the data name is a file, found in the object store by its SHA-256; each
table is a set of records, whose columns have type, unit and bounds of the table of fields where they stand there.

What nobody recorded, such as a licence, is left out. Source: Croissant Format Specification 1.0 (MLCommons, 2024).
"""

from collections.abc import Mapping
from typing import Any

from heimdall_assets.domain import SNAPSHOT
from heimdall_assets.kinds import APPROVED_MEASUREMENTS
from heimdall_assets.lineage.exports.released import Released, encode_document
from heimdall_assets.media_types import JSON_LINES_MEDIA_TYPE, PARQUET_MEDIA_TYPE

_ENCODINGS = {PARQUET_MEDIA_TYPE: "application/x-parquet", JSON_LINES_MEDIA_TYPE: "application/jsonlines"}
"""Our media types -> those that Croissant gives a meaning."""

_TYPES = {
    "bool": "sc:Boolean", "float": "sc:Float", "double": "sc:Float", "int": "sc:Integer", "datetime": "sc:DateTime",
    "timestamp": "sc:DateTime",
}  # fmt: skip
"""How a type of the table of fields, or one of Arrow, begins -> the type of a field; all else is text."""

_CONTEXT = {
    "@language": "en",
    "@vocab": "https://schema.org/",
    "citeAs": "cr:citeAs",
    "column": "cr:column",
    "conformsTo": "dct:conformsTo",
    "cr": "http://mlcommons.org/croissant/",
    "rai": "http://mlcommons.org/croissant/RAI/",
    "data": {"@id": "cr:data", "@type": "@json"},
    "dataType": {"@id": "cr:dataType", "@type": "@vocab"},
    "dct": "http://purl.org/dc/terms/",
    "equivalentProperty": "cr:equivalentProperty",
    "examples": {"@id": "cr:examples", "@type": "@json"},
    "extract": "cr:extract",
    "field": "cr:field",
    "fileObject": "cr:fileObject",
    "fileProperty": "cr:fileProperty",
    "fileSet": "cr:fileSet",
    "format": "cr:format",
    "includes": "cr:includes",
    "isLiveDataset": "cr:isLiveDataset",
    "jsonPath": "cr:jsonPath",
    "key": "cr:key",
    "md5": "cr:md5",
    "parentField": "cr:parentField",
    "path": "cr:path",
    "recordSet": "cr:recordSet",
    "references": "cr:references",
    "regex": "cr:regex",
    "repeated": "cr:repeated",
    "replace": "cr:replace",
    "samplingRate": "cr:samplingRate",
    "sc": "https://schema.org/",
    "separator": "cr:separator",
    "source": "cr:source",
    "subField": "cr:subField",
    "transform": "cr:transform",
}
"""The specification's own, word for word (its appendix)."""


def encode_croissant(released: Released) -> bytes:
    """Return Croissant, JSON-LD."""
    provenance = released.provenance
    held = released.list_data()
    return encode_document(
        {
            "@context": _CONTEXT,
            "@type": "sc:Dataset",
            "conformsTo": "http://mlcommons.org/croissant/1.0",
            "name": f"{APPROVED_MEASUREMENTS}-{provenance['database']['snapshot']}",
            "description": f"What model {released.version} was made of: {_count(released)}.",
            "datePublished": provenance["released"]["started_at"],
            "distribution": [_describe_file(kind, name, artifact) for kind, name, artifact in held],
            "recordSet": [
                _describe_table(f"{kind}/{name}", released.tables[artifact["digest"]])
                for kind, name, artifact in held
                if artifact["digest"] in released.tables
            ],
        }
    )


def _count(released: Released) -> str:
    """Return what the snapshot counted, as its manifest names it."""
    summary = released.nodes[APPROVED_MEASUREMENTS]["summary"]
    return ", ".join(f"{name} {value}" for name, value in sorted(summary.items()) if isinstance(value, int))


def _describe_file(kind: str, name: str, artifact: Mapping[str, Any]) -> dict[str, Any]:
    digest = artifact["digest"]
    return {
        "@type": "cr:FileObject",
        "@id": f"{kind}/{name}",
        "name": f"{kind}/{name}",
        "contentUrl": f"objects/sha256/{digest[:2]}/{digest}",
        "contentSize": f"{artifact['size']} B",
        "encodingFormat": _ENCODINGS.get(artifact["media_type"], artifact["media_type"]),
        "sha256": digest,
    }


def _describe_table(name: str, columns: Mapping[str, str]) -> dict[str, Any]:
    fields = [_describe_column(name, column, told) for column, told in columns.items()]
    # A set of records is no file, so that it has another name.
    return {"@type": "cr:RecordSet", "@id": f"records/{name}", "name": name, "field": fields}


def _describe_column(table: str, column: str, told: str) -> dict[str, Any]:
    known = next((field for field in SNAPSHOT if field.snapshot == column), None)
    description, told = ("", told) if known is None else (known.describe(), known.dtype.lower())
    return {
        "@type": "cr:Field",
        "@id": f"records/{table}/{column}",
        "name": column,
        **({"description": description} if description else {}),
        "dataType": next((kind for begin, kind in _TYPES.items() if told.startswith(begin)), "sc:Text"),
        "source": {"fileObject": {"@id": table}, "extract": {"column": column}},
    }
