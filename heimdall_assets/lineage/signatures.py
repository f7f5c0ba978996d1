"""Signatures on a release: whether they hold, whose they are, and whether their keys counted then.

Belongs here: judging the bundle that lies in a release. Does not belong here: what it states (``attestations``), which
keys there are (``stores.database.keys``).
"""

from collections.abc import Iterator

from heimdall_assets.lineage.attestations import BUNDLE_FILE, verify_bundle
from heimdall_assets.lineage.findings import Evidence, Finding
from heimdall_assets.lineage.release_files import SUMS_FILE
from heimdall_assets.manifests import compute_digest


def list_signers(evidence: Evidence) -> list[str]:
    """Return whose signatures hold on all that the release states; empty: it is not signed, or none holds."""
    signers, problems = _judge(evidence)
    return [] if problems else sorted(f"{evidence.keys[name].owner} (key {name[:16]})" for name in signers)


def verify_signatures(evidence: Evidence) -> Iterator[Finding]:
    """Yield signatures that do not hold; a release without any has nothing to tell here."""
    label, own = f"{evidence.version}/{BUNDLE_FILE}", (evidence.version,)
    expected = "signatures by known keys on the files as they lie"
    restore = f"heimdall verify {evidence.version} --repair (writes it again from its copy)"
    yield from (Finding("signature", label, found, expected, own, restore) for found in _judge(evidence)[1])


def _judge(evidence: Evidence) -> tuple[set[str], list[str]]:
    """Return who signed, and what is wrong."""
    bundle = evidence.files.get(BUNDLE_FILE)
    if bundle is None:
        return set(), []
    digests = {
        name: compute_digest(data) for name, data in evidence.files.items() if name not in (BUNDLE_FILE, SUMS_FILE)
    }
    signers, problems = verify_bundle(bundle, digests, {name: key.public_pem for name, key in evidence.keys.items()})
    for name in sorted(signers):
        ended = evidence.keys[name].retired_entry
        if ended is not None and (evidence.entry is None or ended < evidence.entry):
            problems.append(f"signed by key {name} after entry {ended} of the log had retired it")
    return signers, problems
