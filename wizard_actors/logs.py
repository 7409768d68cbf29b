"""Logs: one line a request, on stderr, as text or JSON. Prompts and answers appear only where `log_content` is true.

The library itself logs through the standard `logging` (loggers "wizard_actors.*") and configures nothing; a program
that wants these lines calls `configure` once.
"""

from __future__ import annotations

import logging
import sys
from collections.abc import MutableMapping
from typing import TextIO

import structlog

from wizard_actors.config import LoggingConfig

__all__ = ["configure"]


def configure(settings: LoggingConfig, stream: TextIO | None = None) -> None:
    """Send this package's logs to `stream` (default: stderr) from now on, replacing what an earlier call set up."""
    renderer: structlog.typing.Processor = (
        structlog.processors.JSONRenderer()
        if settings.format == "json"
        else structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"], drop_missing=True)
    )
    handler = logging.StreamHandler(sys.stderr if stream is None else stream)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[
                structlog.processors.TimeStamper(fmt="iso", utc=True),
                structlog.stdlib.add_log_level,
                structlog.stdlib.add_logger_name,
                _take_fields,
            ],
            processors=[
                structlog.processors.format_exc_info,
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                renderer,
            ],
        )
    )
    logger = logging.getLogger("wizard_actors")
    for old in tuple(logger.handlers):
        logger.removeHandler(old)
    logger.addHandler(handler)
    logger.setLevel(settings.level)
    logger.propagate = False


def _take_fields(_logger: object, _method: str, event: MutableMapping[str, object]) -> MutableMapping[str, object]:
    """Lift the fields of a request's line to the top."""
    record = event.get("_record")
    fields = getattr(record, "fields", None)
    if isinstance(fields, dict):
        event.update(fields)
    return event
