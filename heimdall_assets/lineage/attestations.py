"""Attestations: what a release states about its files, as in-toto statements, and whether the signatures on it hold.

Belongs here: the statements' content, verifying a bundle of envelopes. Does not belong here: one envelope
(``envelopes``), signing (``stores.keys``), which keys count (``stores.database.keys``).

Sources: in-toto Attestation Framework 1.0 (Statement), SLSA 1.0 (provenance), DSSE 1.0 (envelope). A bundle is a file
of JSON lines, an envelope each.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from heimdall_assets.envelopes import find_signers, open_envelope, read_statement
from heimdall_assets.manifests import compute_digest, decode_canonical_json, encode_canonical_json

BUNDLE_FILE = "attestations.intoto.jsonl"
PAYLOAD_TYPE = "application/vnd.in-toto+json"
STATEMENT_TYPE = "https://in-toto.io/Statement/v1"
SLSA_TYPE = "https://slsa.dev/provenance/v1"
LINEAGE_TYPE = "urn:heimdall-assets:lineage:2"
BUILD_TYPE = "urn:heimdall-assets:release:2"


def build_statements(parts: Mapping[str, bytes], provenance: Mapping[str, Any]) -> list[bytes]:
    """Return the payloads to be signed, canonical JSON: where the files come from by SLSA, and in our own terms.

    Args:
        parts: file -> bytes, all of the release but the bundle and the sums.
        provenance: what ``build_provenance`` gave.
    """
    subject = [{"name": name, "digest": {"sha256": compute_digest(parts[name])}} for name in sorted(parts)]
    predicates = {SLSA_TYPE: _describe_build(provenance), LINEAGE_TYPE: _describe_lineage(provenance)}
    return [
        encode_canonical_json(
            {"_type": STATEMENT_TYPE, "subject": subject, "predicateType": kind, "predicate": predicate}
        )
        for kind, predicate in predicates.items()
    ]


def encode_bundle(envelopes: Sequence[Mapping[str, Any]]) -> bytes:
    """Return the bundle of signed envelopes."""
    return b"".join(encode_canonical_json(dict(envelope)) + b"\n" for envelope in envelopes)


def verify_bundle(bundle: bytes, digests: Mapping[str, str], keys: Mapping[str, str]) -> tuple[set[str], list[str]]:
    """Return the ids of the keys that signed each statement of a bundle, and what is wrong with it, a phrase each.

    Args:
        bundle: as it lies.
        digests: file -> SHA-256, of all files of the release but the bundle and the sums, as they lie.
        keys: id -> public key in PEM.
    """
    problems: list[str] = []
    signers: set[str] | None = None
    kinds = []
    for number, line in enumerate(bundle.splitlines(), start=1):
        try:
            opened = open_envelope(decode_canonical_json(line), PAYLOAD_TYPE)
            names, statement = find_signers(opened, keys), read_statement(opened)
            said = {entry["name"]: entry["digest"]["sha256"] for entry in statement["subject"]}
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError) as error:
            problems.append(f"line {number}: {error!s:.200}")
            continue
        signers = names if signers is None else signers & names
        kinds.append(statement.get("predicateType"))
        wrong = sorted(name for name in {*said, *digests} if said.get(name) != digests.get(name))
        if statement.get("_type") != STATEMENT_TYPE or wrong:
            problems.append(f"line {number}: it states otherwise of {', '.join(wrong) or 'its own type'}")
    if not problems and sorted(map(str, kinds)) != sorted([SLSA_TYPE, LINEAGE_TYPE]):
        problems.append(f"found statements of {kinds}, expected one of each kind")
    return signers or set(), problems


def _describe_lineage(provenance: Mapping[str, Any]) -> dict[str, Any]:
    return {
        "version": provenance["model"]["version"],
        "manifests": provenance["model"]["manifests"],
        "snapshot": provenance["database"]["snapshot"],
        "log": provenance["log"],
    }


def _describe_build(provenance: Mapping[str, Any]) -> dict[str, Any]:
    """Return SLSA's provenance: settings, what it was made from, by which code, started by what and when."""
    released = provenance["released"]
    environment = provenance["environments"][released["environment"]]
    commits = sorted({str(each["git_sha"]) for each in provenance["environments"].values() if each["git_sha"]})
    return {
        "buildDefinition": {
            "buildType": BUILD_TYPE,
            "externalParameters": {"specs": provenance["specs"]},
            "internalParameters": {"seeds": provenance["seeds"]},
            "resolvedDependencies": [
                {"name": f"{node['kind']}", "digest": {"sha256": node["digest"]}} for node in provenance["nodes"]
            ]
            + [{"name": "code", "digest": {"gitCommit": commit}} for commit in commits],
        },
        "runDetails": {
            "builder": {"id": BUILD_TYPE, "version": {"python": environment.get("python")}},
            "metadata": {"invocationId": released["run_id"], "startedOn": released["started_at"]},
        },
    }
