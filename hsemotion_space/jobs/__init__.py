"""A bounded, fair queue of analyses in warm worker processes: progress, cancel, time limit, recovery from crashes."""

from hsemotion_space.jobs.requests import Place
from hsemotion_space.jobs.runner import JobRunner
from hsemotion_space.jobs.status import Explained, JobError, JobStatus, Phase, State

__all__ = ["Explained", "JobError", "JobRunner", "JobStatus", "Phase", "Place", "State"]
