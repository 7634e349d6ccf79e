"""The inputs of a study on a Ray cluster, or on several workers of one machine."""

from __future__ import annotations

import logging
import os
import pickle
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from importlib.util import find_spec
from typing import Any

import numpy as np
import numpy.typing as npt

from hsemotion_space.batch.analyst import Analyst, Outcome
from hsemotion_space.batch.inputs import Input
from hsemotion_space.batch.records import Record, Study
from hsemotion_space.messages import MessageError

_RETRIES = 2  # of an input whose worker was killed


class ClusterError(MessageError, ValueError):
    """A cluster cannot be used."""


def require_ray() -> None:
    """Raise a ClusterError if Ray is not installed."""
    if find_spec("ray") is None:
        text = "Ray is not installed. Run: pip install 'hsemotion-space[ray]'"
        raise ClusterError(text, code="no_ray")


class _Worker:
    """An actor of Ray: keeps its networks between the batches of one input each."""

    def __init__(self, study: Study, inputs: Sequence[Input]) -> None:
        self._analyst, self._inputs = Analyst(study), inputs

    def __call__(self, batch: Mapping[str, npt.NDArray[np.int64]]) -> dict[str, list[Any]]:
        number = int(batch["id"][0])
        outcome = replace(self._analyst.analyze(self._inputs[number]), analysis=None)
        return {"id": [number], "outcome": [pickle.dumps(outcome)]}


def analyze_on_ray(study: Study, inputs: Sequence[Input], workers: int = 0) -> Iterator[Outcome]:
    """Yield the outcome of each input as it is ready.

    Each worker has one processor and one thread, and reads paths on its own machine; only outcomes travel.
    An input whose worker is killed is analyzed again, at most twice.

    Args:
        study: what all inputs have in common.
        inputs: to analyze.
        workers: their number; 0 for one per processor of the cluster.
    """
    os.environ.setdefault("RAY_BACKEND_LOG_LEVEL", "fatal")  # failed inputs have words of their own
    import ray  # noqa: PLC0415  an extra
    import ray.data  # noqa: PLC0415

    ray.init(
        ignore_reinit_error=True, log_to_driver=False, include_dashboard=False, logging_level=logging.ERROR
    )
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    # requirements-ray.txt admits the versions that take retries like this
    warnings.filterwarnings("ignore", "`ray_remote_args` is deprecated")
    context = ray.data.DataContext.get_current()
    context.max_errored_blocks = -1  # an input that ends its worker again and again does not stop the others
    context.enable_progress_bars = False
    count = workers or int(ray.cluster_resources().get("CPU", 1))
    # items need no task that reads them, which would wait for a processor that the workers have
    items = [{"id": number} for number in range(len(inputs))]
    data = ray.data.from_items(items, override_num_blocks=len(items)).map_batches(
        _Worker,
        fn_constructor_args=(replace(study, settings=replace(study.settings, threads=1)), inputs),
        batch_size=1,
        compute=ray.data.ActorPoolStrategy(size=min(count, len(inputs))),
        num_cpus=1,
        max_restarts=-1,
        max_task_retries=_RETRIES,
    )
    left = set(range(len(inputs)))
    for row in data.iter_rows():
        left.discard(row["id"])
        yield pickle.loads(row["outcome"])  # noqa: S301  of a worker of ours
    for number in sorted(left):
        text = "The process that analyzed this file was ended by the system, several times."
        yield Outcome(Record.failed(inputs[number], study, "worker_died", text))
