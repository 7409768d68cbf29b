"""`wizard batch`: the questions of a file of JSON lines, answered into another one that a later run can go on with."""

from wizard_actors.cli_batch.job import BatchJob

__all__ = ["BatchJob"]
