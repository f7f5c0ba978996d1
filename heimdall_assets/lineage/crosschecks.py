"""Cross-checks: the frozen provenance beside what may have changed since: ledger, release record, events, database.

Belongs here: one comparison a function, each yielding findings. Does not belong here: bytes at rest (``audit``).
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from heimdall_assets.counts import say_count
from heimdall_assets.errors import HeimdallError, OutOfReach
from heimdall_assets.kinds import EVALUATION_METRICS, ONNX_MODEL
from heimdall_assets.lineage.findings import PROVENANCE_FILE, Evidence, Finding, ObjectReader
from heimdall_assets.lineage.walk import decode_manifest
from heimdall_assets.manifests import Manifest, show_value


def verify_chain(evidence: Evidence) -> Iterator[Finding]:
    """Yield what log and ledgers show by themselves."""
    for problem in evidence.ledger_problems:
        yield Finding(
            "ledger_row", problem.split(":")[0], problem.partition(": ")[2] or problem, "the row as it was written",
            (evidence.version,), f"restore the database from its backup, then heimdall verify {evidence.version}",
        )  # fmt: skip


def verify_log(evidence: Evidence, provenance: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield that the log is no longer the one, or no longer begins as the one, that the release was made under."""
    if provenance["log"] is not None:
        yield from compare_logs(provenance["log"], evidence.log, evidence.version, (evidence.version,))


def compare_logs(
    then: Mapping[str, Any], now: Mapping[str, Any] | None, kept_by: str, releases: tuple[str, ...]
) -> Iterator[Finding]:
    """Yield that the log of today does not begin as it did.

    Args:
        then: checkpoint that was kept: ``log``, ``size``, ``root``.
        now: that of today's log over as many entries; None: it has fewer, or no name.
        kept_by: what kept it.
        releases: that hang on it.
    """
    if now == then:
        return
    found = _describe_log(now) if now is not None else f"fewer than {then['size']} entries, or none"
    yield Finding(
        "ledger_row", f"log up to {kept_by}, its first {then['size']} entries", found, _describe_log(then), releases,
        "restore the database from its backup, then run heimdall verify again",
    )  # fmt: skip


def _describe_log(checkpoint: Mapping[str, Any]) -> str:
    return f"log {checkpoint['log']} with root {checkpoint['root']}"


def verify_record(evidence: Evidence, provenance: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield what the ledger's row of the release says otherwise than its provenance."""
    manifests = provenance["model"]["manifests"]
    expected = {
        "manifest": manifests.get(ONNX_MODEL),
        "evaluation": manifests.get(EVALUATION_METRICS),
        "provenance": evidence.release["files"].get(PROVENANCE_FILE, {}).get("sha256"),
        "specs": provenance["specs"],
        **{name: value for name, value in provenance["metrics"].items() if isinstance(value, int | float)},
    }
    for name, value in sorted(evidence.release.items()):
        if expected.get(name) is not None and value != expected[name]:
            yield Finding(
                "ledger_row",
                f"model_releases {evidence.version} {name}",
                f"{value!r:.120}",
                f"{expected[name]!r:.120}",
                (evidence.version,),
                f"restore the database from its backup, then heimdall verify {evidence.version}",
            )


def verify_strangers(evidence: Evidence) -> Iterator[Finding]:
    """Yield what lies among the releases, of whichever version, and is not what the database says."""
    for name, found in evidence.strangers.items():
        yield Finding(
            "release_file", name, found, "what the database says is released", (),
            f"heimdall verify {evidence.version} --repair, or move {name} away",
        )  # fmt: skip


def verify_references(evidence: Evidence, provenance: Mapping[str, Any], objects: ObjectReader) -> Iterator[Finding]:
    """Yield references of the results behind a release that point at something else: who asks again gets that.

    Another result of the same inputs is a notice: another machine may have computed it, or somebody forged one, and
    the release itself does not hang on it.
    """
    own = (evidence.version,)
    again = "heimdall train (computes it again where it is not what was asked for)"
    for node in provenance["nodes"]:
        manifest = Manifest.model_validate({name: node[name] for name in Manifest.model_fields})
        name = f"{node['kind']} {manifest.reference}"
        try:
            digest = objects.read_reference(manifest.reference)
            if digest in (None, node["digest"]):
                continue
            is_same = decode_manifest(digest, objects.read_bytes(digest)).reference == manifest.reference
        except OutOfReach:
            raise
        except HeimdallError as error:
            yield Finding("reference", name, str(error), f"digest {node['digest']}", own, again)
            continue
        found = f"digest {digest}, {'another result of the same inputs' if is_same else 'of other inputs'}"
        severity = "notice" if is_same else "error"
        yield Finding("reference", name, found, f"digest {node['digest']}", own, again, severity)


def verify_events(evidence: Evidence, provenance: Mapping[str, Any]) -> Iterator[Finding]:
    """Yield Dagster events that say otherwise than the frozen file; deleted ones are a notice."""
    if evidence.dagster_events is None:
        return
    own = (evidence.version,)
    look = f"heimdall lineage {evidence.version} (the frozen file holds what the events said)"
    gone = []
    for node in provenance["nodes"]:
        frozen = node["event"]
        if frozen is None:
            continue
        event = evidence.dagster_events.get(frozen["storage_id"])
        if event is None:
            gone.append(f"{frozen['asset']} {frozen['storage_id']}")
            continue
        expected = {"asset": frozen["asset"], "run_id": frozen["run_id"], "data_version": node["digest"]}
        wrong = {name: event[name] for name, value in expected.items() if name in event and event[name] != value}
        for asset, version in (event.get("inputs") or {}).items():
            if asset in node["parents"] and version is not None and version != node["parents"][asset]:
                wrong[f"input {asset}"], expected[f"input {asset}"] = version, node["parents"][asset]
        if wrong:
            yield Finding(
                "dagster_event",
                f"{frozen['asset']} event {frozen['storage_id']}",
                list_pairs(wrong),
                list_pairs(expected, wrong),
                own,
                look,
            )
    if gone:
        name = f"{say_count(len(gone), 'event')} ({', '.join(gone)})"
        yield Finding("dagster_event", name, "none of them", "as Dagster recorded them", own, look, "notice")


def list_pairs(values: Mapping[str, Any], names: Iterable[str] | None = None) -> str:
    """Return values, or those of ``names``, as a finding tells them."""
    shown = values if names is None else {name: values[name] for name in names}
    return ", ".join(f"{name} {show_value(value):.80}" for name, value in shown.items())
