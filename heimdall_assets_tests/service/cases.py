"""A home with released models, sessions as the service takes them, and a client that speaks plain HTTP."""

import http.client
import json
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from heimdall_assets.pipeline.releases.promotion import promote_release
from heimdall_assets.signals.geodesy import compute_distance_m
from heimdall_assets.specs import PromotionSpec, SimulationSpec, TrainingSpec
from heimdall_assets.stores.home import Stores
from heimdall_assets_tests.homes import fill_home, make_places, release

FEW = PromotionSpec(min_sessions=1, num_bootstrap=100)
LIGHT_M_S = 299_792_458.0
BEGAN_UNIX_NS = 1_767_225_600_000_000_000
SOURCE = (45.1, 8.4)
PLACES = {
    "ivrea": (45.467, 7.876),
    "torino": (45.044, 7.672),
    "novara": (45.446, 8.620),
    "alessandria": (44.913, 8.615),
    "asti": (44.900, 8.207),
}


def make_home(folder: Path, num_releases: int = 3) -> Path:
    """Return a home with releases v1.0.0, v1.1.0 ..., of which the first is champion."""
    simulation = SimulationSpec(num_sessions=20, min_receivers=4, max_receivers=4, duration_s=0.8)
    places = fill_home(folder, simulation)
    for epochs in range(1, num_releases + 1):
        release(places, TrainingSpec(max_epochs=epochs, num_threads=1), FEW)
    promote_release(places.open_stores(), "v1.0.0", "ada", "the first")
    return places.home


def open_home(home: Path) -> Stores:
    return make_places(home).open_stores()


def make_session(**changes: Any) -> dict[str, Any]:
    """Return a session of stored arrivals and levels, as exact as its clocks; ``changes`` are of its first receiver."""
    receivers = []
    for name, place in PLACES.items():
        delay_s = float(compute_distance_m(*SOURCE, *place)) / LIGHT_M_S
        receivers.append(
            {
                "name": name,
                "latitude": place[0],
                "longitude": place[1],
                "frequency_hz": 145.5e6,
                "altitude_m": 200.0,
                "level_db": -90.0,
                "snr_db": 20.0,
                "clock_class": "gnss_calibrated",
                "arrival_unix_ns": BEGAN_UNIX_NS + round(delay_s * 1e9),
                "arrival_sigma_s": 1e-7,
            }
        )
    receivers[0] |= changes
    return {"receivers": receivers}


def make_recorded(stores: Stores, number: int = 0) -> tuple[dict[str, Any], dict[str, bytes]]:
    """Return a stored session whose recordings go as parts of a form, and their bytes by part."""
    name = stores.measurements.list_sessions()[number]["id"]
    receivers, files = [], {}
    for row in stores.measurements.read_session_rows(name).to_dict("records"):
        receivers.append(
            {
                "name": row["station_name"],
                "latitude": row["receiver_latitude"],
                "longitude": row["receiver_longitude"],
                "altitude_m": row["receiver_altitude_m"],
                "frequency_hz": row["frequency_hz"],
                "level_db": row["signal_strength_db"],
                "snr_db": row["snr_db"],
                "carrier_offset_hz": row["frequency_offset_hz"],
                "clock_class": row["clock_class"],
                "recording": {
                    "part": f"iq_{row['station_name']}",
                    "sample_rate_hz": row["iq_sample_rate_hz"],
                    "start_unix_ns": int(row["iq_start_unix_ns"]),
                },
            }
        )
        files[f"iq_{row['station_name']}"] = stores.objects.read_bytes(row["iq_data_location"].removeprefix("sha256:"))
    return {"receivers": receivers}, files


def encode_form(session: bytes, files: Mapping[str, bytes], ending: str = ".npy") -> tuple[str, bytes]:
    """Return content type and body of a form."""
    boundary = uuid.uuid4().hex
    parts = [f'--{boundary}\r\nContent-Disposition: form-data; name="session"\r\n\r\n'.encode() + session + b"\r\n"]
    for name, data in files.items():
        head = f'--{boundary}\r\nContent-Disposition: form-data; name="{name}"; filename="{name}{ending}"\r\n\r\n'
        parts.append(head.encode() + data + b"\r\n")
    return f"multipart/form-data; boundary={boundary}", b"".join(parts) + f"--{boundary}--\r\n".encode()


class Client:
    """One connection, opened again where the service closed it."""

    def __init__(self, port: int, key: str | None = None):
        self.port = port
        self._headers = {} if key is None else {"Authorization": f"Bearer {key}"}
        self._connection = http.client.HTTPConnection("127.0.0.1", port, timeout=60)

    def ask(
        self, path: str, method: str = "GET", body: bytes | None = None, headers: Mapping[str, str] | None = None
    ) -> tuple[int, Any, http.client.HTTPMessage]:
        """Return status, JSON (text where it is none) and headers."""
        self._connection.request(method, path, body=body, headers={**self._headers, **(headers or {})})
        answer = self._connection.getresponse()
        text = answer.read().decode()
        is_json = (answer.headers.get("content-type") or "").startswith("application/json")
        return answer.status, json.loads(text) if is_json else text, answer.headers

    def locate(self, session: Any, headers: Mapping[str, str] | None = None) -> tuple[int, Any]:
        body = session if isinstance(session, bytes) else json.dumps(session).encode()
        status, said, _ = self.ask("/v1/locate", "POST", body, {"Content-Type": "application/json", **(headers or {})})
        return status, said

    def locate_form(self, session: Any, files: Mapping[str, bytes], ending: str = ".npy") -> tuple[int, Any]:
        kind, body = encode_form(json.dumps(session).encode(), files, ending)
        return self.ask("/v1/locate", "POST", body, {"Content-Type": kind})[:2]

    def close(self) -> None:
        self._connection.close()


def measure_m(said: Mapping[str, Any], place: tuple[float, float] = SOURCE) -> float:
    """Return how far an answer lies from a place."""
    return float(np.asarray(compute_distance_m(said["latitude"], said["longitude"], *place)))
