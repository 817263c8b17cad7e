"""Background jobs: verbs of the command line in processes of their own, told by folders alone."""

from engine.jobs.job import Job, Suite
from engine.jobs.jobs import Jobs

__all__ = ["Job", "Jobs", "Suite"]
