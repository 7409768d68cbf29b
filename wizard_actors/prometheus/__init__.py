"""A client's metrics for Prometheus: what a `MetricsSnapshot` counts and measures, as series. Needs the extra `http`.

    registry.register(WizardCollector(client.metrics))            # beside what else a program shows
    body, content_type = exposition(client.metrics(), accept)     # or: the answer to one scrape

Totals are the sums of series, so only series are shown. Labels are as bounded as the snapshot's are. What can happen to
a model, a cache or a session is shown as 0 before it happens, because `rate` misses the first step of a counter that
begins at 1; only what is counted by error code, by who served, by route or by status begins with its first event.
"""

from importlib.util import find_spec

if find_spec("prometheus_client") is None:
    raise ModuleNotFoundError(
        "metrics for Prometheus need prometheus-client, which is not installed: `pip install 'wizard-actors[http]'`",
        name="prometheus_client",
    )

from wizard_actors.prometheus.collector import Responses, WizardCollector, exposition

__all__ = ["Responses", "WizardCollector", "exposition"]
