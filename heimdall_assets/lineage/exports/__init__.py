"""Exports: the lineage of a release in the formats of others, each made of the same frozen evidence.

Belongs here: one file a format. The same release always gives the same bytes: no clock, no chance.
Does not belong here: our own format (``provenance``), reading files and objects (``pipeline.releases.reading``).
"""

from collections.abc import Callable

from heimdall_assets.lineage.exports.annex_iv import encode_annex_iv
from heimdall_assets.lineage.exports.croissant import encode_croissant
from heimdall_assets.lineage.exports.cyclonedx import encode_cyclonedx
from heimdall_assets.lineage.exports.openlineage import encode_openlineage
from heimdall_assets.lineage.exports.prov_json import encode_prov
from heimdall_assets.lineage.exports.released import Released

EXPORTS: dict[str, Callable[[Released], bytes]] = {
    "prov": encode_prov,
    "openlineage": encode_openlineage,
    "cyclonedx": encode_cyclonedx,
    "croissant": encode_croissant,
    "annex-iv": encode_annex_iv,
}
"""What a format is called -> the document of a release in it, UTF-8."""
