"""What happened, counted: a fold over events, without clock, lock or waiting.

Counts of requests stand by route, counts of attempts by model, and the totals are their sums. Labels are bounded: past
`LABELS_AT_MOST` models or routes, and past `CODES_AT_MOST` codes of one kind, what comes new is counted as "other".
"""

from wizard_actors.metrics.fold import CODES_AT_MOST, LABELS_AT_MOST, OTHER, REFUSED, Metrics, overhead
from wizard_actors.metrics.snapshot import (
    AttemptMetrics,
    BreakerMetrics,
    CacheGauges,
    Counts,
    Gauges,
    LaneGauges,
    MetricsSnapshot,
    ModelGauges,
    RequestMetrics,
    SessionGauges,
)

__all__ = [
    "CODES_AT_MOST",
    "LABELS_AT_MOST",
    "OTHER",
    "REFUSED",
    "AttemptMetrics",
    "BreakerMetrics",
    "CacheGauges",
    "Counts",
    "Gauges",
    "LaneGauges",
    "Metrics",
    "MetricsSnapshot",
    "ModelGauges",
    "RequestMetrics",
    "SessionGauges",
    "overhead",
]
