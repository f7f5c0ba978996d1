"""The stopwatch takes turns, and what it says stands among a result's facts and not in the result."""

from pathlib import Path

from heimdall_assets.kinds import APPROVED_MEASUREMENTS, IQ_FILES
from heimdall_assets.media_types import JSON_MEDIA_TYPE
from heimdall_assets.pipeline.results import Computed, find_or_compute
from heimdall_assets.specs import RecordingSpec
from heimdall_assets.stores.computing import note_measurement, read_facts
from heimdall_assets.stores.objects.folder import FolderObjectStore
from heimdall_assets.stores.stopwatch import MAX_ROUNDS, MIN_ROUNDS, summarize_times, time_in_turns


def test_calls_take_turns_after_a_round_that_does_not_count() -> None:
    called: list[str] = []
    calls = {name: (lambda name=name: called.append(name)) for name in ("first", "second")}
    times = time_in_turns(calls, max_s=60.0)
    assert {name: len(taken) for name, taken in times.items()} == {"first": MAX_ROUNDS, "second": MAX_ROUNDS}
    assert called == ["first", "second"] * (MAX_ROUNDS + 1)
    assert all(taken >= 0 for taken in times["first"])


def test_there_are_some_rounds_however_long_they_take() -> None:
    times = time_in_turns({"only": lambda: None}, max_s=0.0)
    assert len(times["only"]) == MIN_ROUNDS


def test_summary_is_by_nearest_rank() -> None:
    found = summarize_times([float(value) for value in range(1, 101)])
    assert found == {"p50": 50.0, "p95": 95.0, "num_rounds": 100}
    assert summarize_times([7.0]) == {"p50": 7.0, "p95": 7.0, "num_rounds": 1}


def test_what_was_measured_is_a_fact_of_the_computation_and_not_of_its_result(tmp_path: Path) -> None:
    note_measurement("outside", {"ms": 1.0})  # nobody computes: nobody keeps it

    def compute_in(folder: str, milliseconds: float | None) -> tuple[str, object]:
        objects = FolderObjectStore(tmp_path / folder)

        def compute() -> Computed:
            if milliseconds is not None:
                note_measurement("latency", {"ms": milliseconds})
            return {"table": objects.put_bytes(b"rows", JSON_MEDIA_TYPE)}, {}

        parents = {APPROVED_MEASUREMENTS: "0" * 64}
        manifest = find_or_compute(objects, IQ_FILES, parents, [RecordingSpec()], compute).manifest
        facts = read_facts(objects, manifest.digest)
        assert facts is not None
        return manifest.digest, facts.get("measured")

    digests, measured = zip(*(compute_in(name, ms) for name, ms in (("a", 1.0), ("b", 2.0), ("c", None))), strict=True)
    assert len(set(digests)) == 1
    assert measured == ({"latency": {"ms": 1.0}}, {"latency": {"ms": 2.0}}, None)
