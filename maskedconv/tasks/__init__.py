"""Many tasks over one backbone, each with its learned values, statistics and head."""

from maskedconv.tasks.tasks import Tasks

__all__ = ["Tasks"]
