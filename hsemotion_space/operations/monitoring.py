"""Metrics of a running server in the format of Prometheus."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Final

from prometheus_client import CollectorRegistry, Counter, Histogram, ProcessCollector, generate_latest
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from hsemotion_space.logs import EVENTS
from hsemotion_space.operations.health import Deployment, Health, examine

SECONDS: Final = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0)
"""Bounds of the histograms."""
STATES: Final = {"ok": 1.0, "off": 1.0, "starting": 0.0, "failing": 0.0}
"""Value of a check."""


class Metrics(logging.Handler, Collector):
    """Counts the events of the log, and reads everything else when it is asked.

    Args:
        deployment: that is measured.
    """

    def __init__(self, deployment: Deployment) -> None:
        logging.Handler.__init__(self, logging.DEBUG)
        self.deployment = deployment
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self._jobs = Counter("hsemotion_jobs", "Jobs that ended", ["kind", "state"], registry=self.registry)
        self._ran, self._waited = (
            Histogram(
                f"hsemotion_job_{name}_seconds", words, ["kind"], registry=self.registry, buckets=SECONDS
            )
            for name, words in (("run", "Time in the worker"), ("wait", "Time in the queue"))
        )
        self._refusals = Counter(
            "hsemotion_refusals", "Refused requests", ["where", "code"], registry=self.registry
        )
        self.registry.register(self)
        EVENTS.addHandler(self)

    def emit(self, record: logging.LogRecord) -> None:
        """Count an event."""
        event: dict[str, str | float] = getattr(record, "event", {})
        if record.msg == "job":
            kind = str(event["kind"])
            self._jobs.labels(kind, event["state"]).inc()
            self._waited.labels(kind).observe(float(event["waited_s"]))
            self._ran.labels(kind).observe(float(event["ran_s"]))
        elif record.msg == "refusal":
            self._refusals.labels(event["where"], event.get("code", event.get("status", ""))).inc()

    def stop(self) -> None:
        """Count no more; not ``close``, which any configuration of the log calls."""
        EVENTS.removeHandler(self)

    def text(self) -> bytes:
        """Return all metrics; asks the database."""
        return generate_latest(self.registry)

    def describe(self) -> list[Metric]:
        """Return nothing, so that registering asks nobody."""
        return []

    def collect(self) -> Iterator[Metric]:
        """Yield what is read now."""
        health = examine(self.deployment)
        checks = GaugeMetricFamily("hsemotion_check", "1 if a check is fine", labels=["check"])
        for name, check in health.checks.items():
            checks.add_metric([name], STATES[check.state])
        yield checks
        yield from _numbers(health)
        yield from self._workers()

    def _workers(self) -> Iterator[Metric]:
        names = {
            "waiting": "Jobs in the queue of a worker", "busy": "Whether a worker runs a job",
            "ready": "Whether a worker takes jobs", "restarts": "Starts of a worker after its first",
            "resident_bytes": "Memory of a worker",
        }  # fmt: skip
        found = {
            name: GaugeMetricFamily(f"hsemotion_worker_{name}", words, labels=["worker"])
            for name, words in names.items()
        }
        for number, worker in enumerate(self.deployment.runner.workers()):
            values = (worker.waiting, worker.busy, worker.state == "ready", worker.restarts)
            for family, value in zip(found.values(), (*values, _resident_bytes(worker.pid)), strict=True):
                family.add_metric([str(number)], float(value))
        yield from found.values()


def _numbers(health: Health) -> Iterator[Metric]:
    """Yield the numbers that the checks of store, publishing and space found."""
    for part in ("store", "publish", "space"):
        for name, value in health.checks[part].values.items():
            if isinstance(value, int):
                yield GaugeMetricFamily(f"hsemotion_{part}_{name}", f"{name} of /healthz", value=value)


def _resident_bytes(pid: int) -> int:
    """Return the memory of a process (Linux; elsewhere 0)."""
    with suppress(OSError, StopIteration):
        lines = Path(f"/proc/{pid}/status").read_text("ascii").splitlines()
        return 1024 * next(int(line.split()[1]) for line in lines if line.startswith("VmRSS:"))
    return 0
