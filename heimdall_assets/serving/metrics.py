"""Metrics: what the service says of itself in Prometheus' text format.

Belongs here: names, labels and buckets. Does not belong here: when something is counted (``serving.app``,
``serving.shadowing``), thresholds.
"""

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

NOBODY = "none"
"""Label of a request that no model answered."""

_SECONDS = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 30.0)
_METRES = (1.0, 10.0, 100.0, 1e3, 5e3, 2e4, 1e5, 1e6)
_SIGMAS = (0.03, 0.1, 0.3, 1.0, 2.0, 3.0, 5.0, 10.0)


class Metrics:
    """Counts of one service, in a registry of its own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter(
            "heimdall_requests",
            "Requests answered or refused.",
            ["route", "status", "version", "chosen_by"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "heimdall_request_seconds",
            "From the head of a request to the end of its answer.",
            ["route"],
            buckets=_SECONDS,
            registry=self.registry,
        )
        self.refusals = Counter(
            "heimdall_refusals", "Requests without an answer, by status.", ["route", "status"], registry=self.registry
        )
        self.in_flight = Gauge("heimdall_in_flight", "Requests under way.", registry=self.registry)
        self.shadow = Counter(
            "heimdall_shadow",
            "Answers that a shadow was to compute too, by what became of that.",
            ["version", "shadow", "outcome"],
            registry=self.registry,
        )
        labels = ["version", "shadow"]
        self.shadow_m = Histogram(
            "heimdall_shadow_distance_m",
            "Between answer and shadow.",
            labels,
            buckets=_METRES,
            registry=self.registry,
        )
        self.shadow_sigmas = Histogram(
            "heimdall_shadow_distance_sigmas",
            "Between answer and shadow, in sigmas of the answer.",
            labels,
            buckets=_SIGMAS,
            registry=self.registry,
        )

    def note_request(self, route: str, status: int, chosen: tuple[str, str] | None, seconds: float) -> None:
        """Count a request that has ended; ``chosen`` is version and by what it was chosen, None: no model was."""
        version, chosen_by = chosen or (NOBODY, NOBODY)
        self.requests.labels(route, str(status), version, chosen_by).inc()
        self.seconds.labels(route).observe(seconds)
        if status >= 400:
            self.refusals.labels(route, str(status)).inc()

    def encode(self) -> bytes:
        """Return all of them as text."""
        return bytes(generate_latest(self.registry))
