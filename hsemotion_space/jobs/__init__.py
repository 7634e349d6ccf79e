"""A bounded, fair queue of analyses in warm worker processes, with progress, time limit, crash recovery."""

from hsemotion_space.jobs.requests import Explained, JobError, JobStatus, Phase, Place, State
from hsemotion_space.jobs.runner import JobRunner

__all__ = ["Explained", "JobError", "JobRunner", "JobStatus", "Phase", "Place", "State"]
