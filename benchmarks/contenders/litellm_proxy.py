"""LiteLLM's proxy with one worker, in front of the upstream: no keys, no database, no logs, set as its documentation
wants it for production. It runs in LiteLLM's environment.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
from pathlib import Path

from _harness import Bench, main
from _load import free_port, load, served

# Nothing is fetched or sent elsewhere, and nothing is logged.
SETTINGS = {"LITELLM_LOCAL_MODEL_COST_MAP": "True", "LITELLM_LOG": "ERROR", "LITELLM_MODE": "PRODUCTION"}


def config(bench: Bench) -> str:
    """Return the proxy's configuration. It is YAML, which JSON is."""
    upstream = {"api_base": f"{bench.upstream}/v1", "api_key": "none"}
    models = [
        {"model_name": name, "litellm_params": {"model": f"openai/{name}", **upstream}} for name in ("first", "second")
    ]
    settings = {"telemetry": False, "set_verbose": False, "request_timeout": 60}
    return json.dumps(
        {
            "model_list": models,
            "litellm_settings": settings,
            "router_settings": {"fallbacks": [{"first": ["second"]}]},
            "general_settings": {"disable_spend_logs": True, "dangerously_permit_weak_or_unset_master_key": True},
        }
    )


def endpoint(bench: Bench) -> None:
    """Load the proxy."""
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        file = Path(folder, "config.yaml")
        file.write_text(config(bench), encoding="utf-8")
        # The program is beside the interpreter: it has none that `-m` would find.
        program = str(Path(sys.executable).with_name("litellm"))
        command = [program, "--config", str(file), "--host", "127.0.0.1", "--port", str(port), "--num_workers", "1"]
        with served(command, port, "/health/liveliness", {**os.environ, **SETTINGS}) as bench.server:
            load(bench, port, "first")


if __name__ == "__main__":
    main({"endpoint": endpoint}, "litellm")
