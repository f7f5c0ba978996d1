"""One log of all decisions and releases, whose entries take the place of the digests of each ledger's own chain."""

from collections.abc import Iterator
from typing import Any

import sqlalchemy as sa
from alembic import op

from heimdall_assets.manifests import compute_digest, decode_canonical_json, encode_canonical_json
from heimdall_assets.merkle import hash_leaf
from heimdall_assets.stores.database.log import begin_log, plain
from heimdall_assets.stores.database.migrations.append_only import lift, protect
from heimdall_assets.stores.database.schema import UtcDateTime

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None

_WORDS = {"decided_by": sa.Text, "decided_at": UtcDateTime, "reason": sa.Text}
_EVENTS = {
    "approval": ("approval_events", {"id": sa.Integer, "recording_session_id": sa.Text, "decision": sa.Text, **_WORDS}),
    "promotion": ("promotion_events", {"id": sa.Integer, "alias": sa.Text, "version": sa.Text, **_WORDS}),
}


def upgrade() -> None:
    """Make the log, write into it what was decided and released before it, by time, and drop the old digests."""
    schema = "heimdall" if op.get_bind().dialect.name == "postgresql" else None
    op.create_table(
        "log_entries",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("body", sa.Text, nullable=False),
        sa.Column("leaf", sa.String(64), nullable=False),
        schema=schema,
    )
    before = sorted([*_list_events(schema), *_list_releases(schema)], key=lambda entry: str(entry[0]))
    bodies = [encode_canonical_json(body) for body in ([begin_log()] if before else []) + [body for _, body in before]]
    rows = [{"id": number, "body": body.decode(), "leaf": hash_leaf(body).hex()} for number, body in enumerate(bodies)]
    entries = sa.table("log_entries", sa.column("id"), sa.column("body"), sa.column("leaf"), schema=schema)
    if rows:
        op.bulk_insert(entries, rows)
    protect("log_entries")
    for table, _ in _EVENTS.values():
        lift(table)
        op.drop_column(table, "digest", schema=schema)
        protect(table)


def _list_events(schema: str | None) -> Iterator[tuple[Any, dict[str, Any]]]:
    for kind, (table, columns) in _EVENTS.items():
        source = sa.table(table, *(sa.column(name, of) for name, of in columns.items()), schema=schema)
        for row in op.get_bind().execute(sa.select(source).order_by(source.c.id)):
            values = {name: plain(value) for name, value in row._mapping.items()}
            yield values["decided_at"], {"kind": kind, **values}


def _list_releases(schema: str | None) -> Iterator[tuple[Any, dict[str, Any]]]:
    names = {"version": sa.Text, "published_at": UtcDateTime, "files": sa.Text, "record": sa.Text}
    source = sa.table("model_releases", *(sa.column(name, of) for name, of in names.items()), schema=schema)
    for row in op.get_bind().execute(sa.select(source).where(source.c.published_at.is_not(None))):
        files = decode_canonical_json(row.files)
        yield (
            plain(row.published_at),
            {
                "kind": "release",
                "version": row.version,
                "published_at": plain(row.published_at),
                "files": {name: entry["sha256"] for name, entry in files.items()},
                "record_sha256": compute_digest(row.record.encode()),
            },
        )
