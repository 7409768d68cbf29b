"""Settings: frozen, checked values, from TOML, from the environment or from code.

Whatever is wrong is found at once, and raised as one `ConfigError` that names the file, each key and each reason.
"""

from wizard_actors.config.checks import DEFAULT_ROUTE
from wizard_actors.config.merge import Origin
from wizard_actors.config.model import (
    PROVIDERS,
    BreakerConfig,
    ErrorRetryConfig,
    Fault,
    LocalConfig,
    ModelConfig,
    PriceConfig,
    RateLimitConfig,
    RetriedError,
    RetryConfig,
    ScriptStep,
    SimulatedConfig,
    SupportsConfig,
    TimeoutsConfig,
    Transport,
    Upstream,
)
from wizard_actors.config.presets import (
    NATIVE,
    PRESETS,
    Api,
    MaxTokensField,
    Preset,
    ReasoningField,
    SeedField,
    preset_of,
)
from wizard_actors.config.root import Effective, WizardConfig
from wizard_actors.config.secret import Secret
from wizard_actors.config.storage import STORAGE_SCHEMES
from wizard_actors.config.strategy import CUSTOM_STRATEGY, Strategy
from wizard_actors.config.tables import (
    BatchConfig,
    CacheConfig,
    Delivery,
    LogFormat,
    LoggingConfig,
    LogLevel,
    OnInterruption,
    RetryBudgetConfig,
    RouteConfig,
    ServerConfig,
    SessionsConfig,
    StreamConfig,
    SupervisionConfig,
    TelemetryConfig,
)
from wizard_actors.config.template import TEMPLATE
from wizard_actors.config.values import Seconds, split_address

__all__ = [
    "CUSTOM_STRATEGY",
    "DEFAULT_ROUTE",
    "NATIVE",
    "PRESETS",
    "PROVIDERS",
    "STORAGE_SCHEMES",
    "TEMPLATE",
    "Api",
    "BatchConfig",
    "BreakerConfig",
    "CacheConfig",
    "Delivery",
    "Effective",
    "ErrorRetryConfig",
    "Fault",
    "LocalConfig",
    "LogFormat",
    "LogLevel",
    "LoggingConfig",
    "MaxTokensField",
    "ModelConfig",
    "OnInterruption",
    "Origin",
    "Preset",
    "PriceConfig",
    "RateLimitConfig",
    "ReasoningField",
    "RetriedError",
    "RetryBudgetConfig",
    "RetryConfig",
    "RouteConfig",
    "ScriptStep",
    "Seconds",
    "Secret",
    "SeedField",
    "ServerConfig",
    "SessionsConfig",
    "SimulatedConfig",
    "Strategy",
    "StreamConfig",
    "SupervisionConfig",
    "SupportsConfig",
    "TelemetryConfig",
    "TimeoutsConfig",
    "Transport",
    "Upstream",
    "WizardConfig",
    "preset_of",
    "split_address",
]
