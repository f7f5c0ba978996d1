"""Small batches of sessions for tests of the database."""

from datetime import UTC, datetime, timedelta
from uuid import NAMESPACE_URL, uuid5

from heimdall_assets.domain import ImportBatch, Measurement, Origin, Position, Session, Source, Station
from heimdall_assets.physical import ClockClass

START = datetime(2024, 5, 17, 12, 30, 15, 123456, tzinfo=UTC)


def make_id(*words: object) -> str:
    """Return the same uuid for the same words."""
    return str(uuid5(NAMESPACE_URL, "/".join(str(word) for word in words)))


def make_batch(
    num_sessions: int = 3, num_stations: int = 2, campaign: str = "alps", origin: Origin = Origin.MEASURED
) -> ImportBatch:
    """Return sessions 0, 1, ... of a campaign, each heard by stations 0, 1, ...: all levels, even ones with IQ."""
    stations = [
        Station(
            id=make_id("station", number),
            name=f"station {number}",
            position=Position(latitude=45.0 + number / 10, longitude=7.0 + number / 10, altitude_m=200.0 + number),
            clock_class=ClockClass.GNSS,
        )
        for number in range(num_stations)
    ]
    sources = [
        Source(
            id=make_id("source", campaign, number),
            name=f"source {number}",
            position=Position(latitude=45.5, longitude=7.5 + number / 1000, altitude_m=12.0),
            frequency_hz=145.5e6,
            error_margin_m=15.0,
        )
        for number in range(num_sessions)
    ]
    sessions = [
        Session(
            id=make_id("session", campaign, number),
            name=f"{campaign} {number}",
            source_id=sources[number].id,
            campaign=campaign,
            origin=origin,
            start=START + timedelta(minutes=number),
            end=START + timedelta(minutes=number, seconds=2),
            attributes={"season": "spring", "number": number},
        )
        for number in range(num_sessions)
    ]
    measurements = [
        make_measurement(session, station, with_iq=number % 2 == 0)
        for session in sessions
        for number, station in enumerate(stations)
    ]
    return ImportBatch(stations, sources, sessions, measurements)


def make_measurement(session: Session, station: Station, with_iq: bool = True) -> Measurement:
    """Return what ``station`` heard of ``session``."""
    identity = make_id("measurement", session.id, station.id)
    if not with_iq:
        return Measurement(
            id=identity,
            session_id=session.id,
            station_id=station.id,
            timestamp=session.start,
            frequency_hz=145.5e6,
            signal_strength_db=-71.25,
            attributes={"gain": 3},
        )
    return Measurement(
        id=identity,
        session_id=session.id,
        station_id=station.id,
        timestamp=session.start,
        frequency_hz=145.5e6,
        signal_strength_db=-60.5,
        snr_db=12.5,
        frequency_offset_hz=-3.5,
        iq_data_location=f"sessions/{session.id}/websdr_{station.id}.npy",
        iq_data_format="npy",
        iq_sample_rate_hz=24_000.0,
        iq_samples_count=48_000,
        iq_start_unix_ns=1_715_949_015_123_456_789,
        duration_s=2.0,
    )
