"""Databases: who answers there, whose tables they are, whether rows can be added, and what time it is there."""

from datetime import UTC

from sqlalchemy import create_engine, func, make_url, select, text
from sqlalchemy.exc import ArgumentError, SQLAlchemyError

from heimdall_assets.cli.probing.finding import MAX_SKEW_S, Finding, State, compare_clocks, judge_clock
from heimdall_assets.errors import HeimdallError, NotFound
from heimdall_assets.stores.database.connection import Database, show_address
from heimdall_assets.stores.database.raw.stated_receivers import Statement
from heimdall_assets.stores.database.schema import approval_events
from heimdall_assets.stores.database.shape import REVISION, Kind

CONNECT_S = 5
_BELIEVED = "set {place} to the right address, and start the server if it is down"


def probe_measurements(place: str, url: str, statement: Statement) -> Finding:
    """Return how the database of measurements is; it is neither made nor upgraded.

    Args:
        place: the variable that names it.
        url: its address.
        statement: what a database of one table does not say itself.
    """
    database = Database(url, read_only=True, statement=statement)
    ahead_s = 0.0
    try:
        if database.is_empty:
            return Finding(place, State.OK, f"{database.shown}: nothing made there yet")
        shape = database.shape
        if shape.kind is Kind.OURS:
            ahead_s = _find_ahead(database)
    except NotFound:
        return Finding(place, State.OK, f"{database.shown}: nothing made there yet")
    except HeimdallError as error:
        return Finding(place, State.WRONG, str(error), _BELIEVED.format(place=place))
    finally:
        database.close()
    told = [f"{database.shown}: {shape.kind.value.replace('_', ' ')}"]
    if not shape.kind.is_foreign:
        told.append(f"schema revision {shape.revision}" + ("" if shape.revision == REVISION else f" of {REVISION}"))
    found = _ask_server(place, url, told)
    if found.state is State.OK and ahead_s > MAX_SKEW_S:
        said = f"{found.told}, newest decision {ahead_s:.0f} s from now"
        return Finding(place, State.WARNING, said, "set this machine's clock by NTP; the order of decisions is right")
    return found


def _find_ahead(database: Database) -> float:
    """Return how far the newest decision is ahead of this machine's clock, in s: it was set back since, or is wrong."""
    with database.reading() as connection:
        last = connection.execute(select(func.max(approval_events.c.decided_at))).scalar()
    return 0.0 if last is None else compare_clocks(last)[0]


def probe_sql(place: str, url: str) -> Finding:
    """Return whether somebody answers at an address that another program opens (Dagster's history, MLflow's runs)."""
    try:
        address = make_url(url)
    except ArgumentError:  # MLflow knows stores that are no address of SQLAlchemy's
        return Finding(place, State.WARNING, "not asked", "its own programs tell whether it answers")
    return _ask_server(place, url, [f"database {show_address(address)}"])


def _ask_server(place: str, url: str, told: list[str]) -> Finding:
    address = make_url(url)
    if address.get_backend_name() == "sqlite":
        return Finding(place, State.OK, ", ".join(told))
    if address.get_backend_name() != "postgresql":
        return Finding(place, State.WARNING, f"{told[0]}: not asked", "its own programs tell whether it answers")
    engine = create_engine(
        address.set(drivername="postgresql+psycopg2"), connect_args={"connect_timeout": CONNECT_S}, pool_size=1
    )
    try:
        with engine.connect() as connection:
            row = connection.execute(
                text(
                    "SELECT current_setting('server_version'), clock_timestamp(), pg_is_in_recovery(),"
                    " has_database_privilege(current_database(), 'CREATE')"
                )
            ).one()
    except SQLAlchemyError as error:
        said = str(getattr(error, "orig", error)).strip().splitlines() or [type(error).__name__]
        return Finding(place, State.WRONG, f"{told[0]}: {said[0]:.200}", _BELIEVED.format(place=place))
    finally:
        engine.dispose()
    version, now, replica, may_create = row
    skew_s, clock = compare_clocks(now.astimezone(UTC))
    told += [f"PostgreSQL {version.split()[0]}", clock]
    if replica:
        told.append("a replica, which nobody may write")
        return Finding(place, State.WARNING, ", ".join(told), f"set {place} to the primary server")
    told.append("may make tables" if may_create else "may make no tables")
    return judge_clock(place, told, skew_s)
