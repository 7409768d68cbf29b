"""What `wizard init` writes: every setting, with its default, ready to be uncommented."""

from typing import Final

__all__ = ["TEMPLATE"]

TEMPLATE: Final = """\
# wizard.toml: which models answer, and how they are protected.
#
# A line that starts with `#` and a space explains; one that starts with `#` alone is a setting at its default, or an
# example: take the `#` away to use it. A table's own keys stand above its sub-tables. Durations are in seconds, or
# texts such as "250ms", "30s", "5m", "2h", "7d". `wizard check` shows every setting in force and its origin. A variable
# such as WIZARD_LOGGING_LEVEL overrides the setting `level` of `[logging]`.


# -- what all models have, unless their own tables say otherwise ----------------------------------------------

[defaults]
#max_concurrency = 32               # calls at once
#upstream = "auto"                  # ask the provider for a stream: "auto" | "stream" | "unary"
#transport = "httpx"                # who speaks HTTP: "httpx" | "fast", which needs the extra `fast`

[defaults.timeouts]                 # of one attempt
#connect = 5
#first_token = 60                   # until the first content
#stall = 30                         # between two pieces
#total = 300

[defaults.retry]                    # of one model: a random wait of up to base_delay * 2^n, at most max_delay
#max_attempts = 3
#base_delay = 0.5
#max_delay = 8
#retry_after_cap = 60               # the longest Retry-After that is waited for ...
#retry_after_cap_with_fallback = 5  # ... while another model remains

[defaults.circuit_breaker]
#failure_threshold = 5              # failures ...
#window = 60                        # ... in so many seconds open it
#open_for = 30
#success_threshold = 2              # successes that close it again
#half_open_probes = 1               # calls at once that try whether it can close

[defaults.rate_limit]
#requests_per_minute = 500          # default: unknown, learned from responses
#tokens_per_minute = 200_000        # default: unknown, learned from responses
#burst = 10                         # calls at once
#adaptive = true                    # obey what the provider's headers say
#max_wait = 30                      # a call that would wait longer is rejected at once
#queue = 1000                       # calls that may wait


# -- the models, in the order in which they are tried ---------------------------------------------------------

[[models]]
name = "primary"                    # what callers, routes, logs and metrics use
provider = "openai"                 # openai | anthropic | gemini | local | simulated | custom | groq, ollama, ...
model = "gpt-5-mini"                # the provider's name for it; default: the name
api_key_env = "OPENAI_API_KEY"      # the variable that holds the key; never the key itself
#base_url = "https://api.openai.com/v1"
#enabled = true
#rate_limit_group = "account"       # models of one group share one limit
#proxy = "http://proxy.example.com:3128"
#ca_file = "company-ca.pem"         # certificates to trust
#context_window = 400_000           # tokens; default: as genai-prices has it, else unknown
#supports = { tools = true, images = true, schema = true, sampling = true }   # a prompt that needs more skips the model
#max_tokens = 8192                  # of an answer, where the prompt does not say
#api = "chat"                       # OpenAI's protocol: "chat" | "responses"
#price = { input = 0.25, output = 2.00, cached_input = 0.025, cache_write = 0.25 }   # US dollars a million tokens
#headers = { OpenAI-Organization = "org-example" }
#extra = { service_tier = "flex" }  # goes into every request as it is

#[[models]]
#name = "backup"
#provider = "anthropic"
#model = "claude-haiku-4-5"
#api_key_file = "anthropic.key"     # a file that holds the key
#timeouts = { first_token = 10 }    # merged over [defaults]
#circuit_breaker = { failure_rate = 0.5, minimum_calls = 20 }   # of at least so many calls; for failure_threshold
#retry = { errors = { overloaded = { max_attempts = 5, base_delay = 1, max_delay = 30 } } }   # after this error

#[[models]]
#name = "azure"
#provider = "azure"
#model = "gpt-4o"                   # the deployment
#base_url = "https://resource.openai.azure.com"
#api_version = "2024-10-21"         # leave it out for Azure's v1 API
#api_key_env = "AZURE_OPENAI_API_KEY"

#[[models]]
#name = "embedded"                  # needs the extra `local`
#provider = "local"
#enabled = false
#[models.local]
#gguf = "model.gguf"                # default: the weights of the extra `local`
#context = 2048                     # tokens
#threads = 4                        # default: one for every two cores
#start_timeout = 30

#[[models]]
#name = "pretender"                 # answers without any network; for trying things out
#provider = "simulated"
#enabled = false
#[models.simulated]
#answer = "All is well."            # default: a sentence that names the model
#connect = 0
#first_token = 0.05
#per_chunk = 0.02
#words_per_chunk = 1
#[[models.simulated.script]]        # the first calls meet these steps in order; the rest are answered
#fault = "rate_limit"
#times = 2
#retry_after = 1
#[[models.simulated.script]]
#fault = "disconnect"
#after_words = 3
#[[models.simulated.script]]
#fault = "slow_first_token"
#delay = 20
#[[models.simulated.script]]
#fault = "error"
#status = 503

#[[models]]
#name = "own"                       # a provider of your own, given where the client is opened; or of another package
#provider = "custom"
#enabled = false
#options = { voice = "calm" }       # its settings


# -- routes ---------------------------------------------------------------------------------------------------

[fallback]                          # the default route, named "wizard"
#chain = ["primary", "backup"]      # default: all enabled models, in this file's order
#strategy = "sequential"            # "sequential" | "parallel" | "hedged" | "adaptive" | "cheapest" | "custom:NAME"
#spill = false                      # when a model is full: true goes on to the next, false waits
#static_answer = "Please try again later."   # when every model failed; default: an error

#[[routes]]                         # more routes, with the same keys
#name = "fast"
#chain = ["backup", "primary"]
#strategy = "hedged"
#hedge_delay = 2                    # start the next model when the first is so late ...
#hedge_quantile = 0.95              # ... or later than this share of its calls


# -- what they share ------------------------------------------------------------------------------------------

[cache]
#max_entries = 1000                 # default: 0, off; the other keys need it
#max_bytes = 67_108_864
#ttl = "1h"
#stale_if_error = 0                 # how long after that an entry may stand in when all models fail

[sessions]
#storage = "sqlite:wizard.db"       # "memory:" | "sqlite:PATH" | "file:FOLDER" | one that a package offers
#expire_idle = "2h"                 # after it was last used; default: never
#expire_age = "7d"                  # after the start; default: never
#max_sessions = 10_000              # turns in progress and waiting, at most
#timeout = 10                       # for one call of the storage
#context_tokens = 8000              # of a conversation, shown to the model; default: what the model has room for

[stream]
#delivery = "live"                  # "buffered" holds text until it is complete, and so can change models midway
#on_interruption = "fail"           # "reset" tells the consumer to drop what it has, and starts over
#consumer_idle = 300                # a consumer that reads nothing for so long loses its stream

[batch]
#max_concurrency = 8                # prompts of one batch asked at once

[server]
#http = "127.0.0.1:8000"            # default: closed
#websocket = "127.0.0.1:8001"       # default: closed
#api_keys_file = "keys.toml"        # who may use the endpoints (`wizard serve --new-key`); none: this machine alone
#max_in_flight = 1000               # calls of the whole client at once; more are refused
#queue_timeout = 30                 # the longest wait for room at a full model
#drain_timeout = 10                 # how long a stop waits for calls in flight
#origins = ["https://example.com"]  # web pages from which browsers may connect
#tls_cert = "cert.pem"              # with tls_key: the endpoints speak TLS
#tls_key = "key.pem"
#max_connections = 4096             # more are refused
#max_connections_per_key = 1024     # the same, with one key
#max_message = 4_194_304            # bytes
#max_header = 16_384                # bytes
#max_json_depth = 64
#max_per_connection = 128           # requests in progress; more are refused
#max_per_key = 256                  # requests in progress, for a key that sets no other bound
#handshake_timeout = 10
#idle_timeout = 600                 # a connection on which nothing happens for so long is closed
#send_timeout = 30                  # a connection that takes nothing of what is sent for so long is closed

[logging]
#level = "INFO"                     # "DEBUG" | "INFO" | "WARNING" | "ERROR" | "CRITICAL"
#format = "text"                    # "text" | "json"
#log_content = false                # true writes prompts and answers into the log

[telemetry]
#otel = false                       # true: spans and metrics for OpenTelemetry, sent as the variables OTEL_* say

[supervision]
#mailbox = 256                      # asks that one actor's mailbox holds
#tells = 1024                       # tells; the oldest are dropped beyond that
#max_restarts = 5                   # crashes ...
#restart_window = 30                # ... in so many seconds; one more and the actor is down ...
#down_retry = 60                    # ... and tried again so often

[retry_budget]                      # what retries and hedges of all models may cost; one costs 1
#enabled = true
#initial = 10
#refill_per_second = 10
#refill_to = 10
#deposit = 0.2                      # what each request adds ...
#max = 100                          # ... up to here
"""
