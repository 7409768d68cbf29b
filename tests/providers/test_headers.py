"""Rate-limit headers in the dialects of OpenAI and those compatible with it."""

import gzip
import json
from pathlib import Path

import pytest

from wizard_actors.providers.headers import parse_duration, parse_limits
from wizard_actors.types import LimitHeaders, LimitWindow

NOW = 1_700_000_000.0


def limits(headers: dict[str, str], status: int = 200) -> LimitHeaders | None:
    """Return what the headers say at NOW."""
    return parse_limits(headers, status=status, wall_now=NOW)


def requests(headers: dict[str, str]) -> LimitWindow | None:
    """Return what the headers say of requests at NOW."""
    found = limits(headers)
    return None if found is None else found.requests


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("12ms", 0.012),
        ("17.399999999s", 17.399999999),
        ("6m0s", 360.0),
        ("1h2m3.5s", 3723.5),
        ("250us", 0.00025),
        ("3µs", 3e-6),
        ("1.5h", 5400.0),
        (" 2s ", 2.0),
        ("0s", 0.0),
        ("", None),
        ("12", None),
        ("-1s", None),
        ("s", None),
        ("1d", None),
        ("1s trailing", None),
    ],
)
def test_go_durations_are_seconds(text: str, seconds: float | None) -> None:
    """Every unit and their sums are understood, nothing else is."""
    found = parse_duration(text)
    assert found == (None if seconds is None else pytest.approx(seconds))


def test_openai_states_requests_and_tokens() -> None:
    """OpenAI's and Groq's names, with Go durations."""
    found = limits(
        {
            "x-ratelimit-limit-requests": "5000",
            "x-ratelimit-remaining-requests": "4999",
            "x-ratelimit-reset-requests": "12ms",
            "x-ratelimit-limit-tokens": "160000",
            "x-ratelimit-remaining-tokens": "159974",
            "x-ratelimit-reset-tokens": "6m0s",
        }
    )
    assert found == LimitHeaders(LimitWindow(5000, 4999, 0.012), LimitWindow(160_000, 159_974, 360))


def test_azure_resets_are_milliseconds() -> None:
    """Of 120 requests a minute one comes back in 500: milliseconds, where the window's length stands beside."""
    azure = {
        "x-ratelimit-limit-requests": "120",
        "x-ratelimit-remaining-requests": "119",
        "x-ratelimit-reset-requests": "500",
        "x-ratelimit-renewalperiod-requests": "60",
    }
    assert requests(azure) == LimitWindow(120, 119, 0.5)
    assert requests({**azure, "x-ratelimit-remaining-requests": "-1", "x-ratelimit-limit-requests": "-1"}) is None


def test_whole_numbers_are_seconds() -> None:
    """Without a period beside them."""
    found = requests({"x-ratelimit-remaining-requests": "3", "x-ratelimit-reset-requests": "55"})
    assert found == LimitWindow(remaining=3, reset=55)


def test_mistral_names_its_windows() -> None:
    """The window's length is all that is known of its reset; a month says nothing about the next call."""
    found = limits(
        {
            "x-ratelimit-limit-req-10-second": "60",
            "x-ratelimit-remaining-req-10-second": "53",
            "x-ratelimit-limit-tokens-minute": "2000000",
            "x-ratelimit-remaining-tokens-minute": "1999370",
            "x-ratelimit-limit-tokens-month": "10000000000",
            "x-ratelimit-remaining-tokens-month": "9999999370",
        }
    )
    assert found == LimitHeaders(LimitWindow(60, 53, 10), LimitWindow(2_000_000, 1_999_370, 60))
    assert limits({"x-ratelimit-remaining-tokens-month": "7"}) is None


@pytest.mark.parametrize("prefix", ["x-ratelimit", "ratelimit"])
@pytest.mark.parametrize(
    ("reset", "seconds"), [("2", 2.0), (str(int(NOW) + 30), 30.0), (str(int(NOW + 30) * 1000), 30.0), ("0", None)]
)
def test_plain_names_count_requests(prefix: str, reset: str, seconds: float | None) -> None:
    """Together counts seconds, OpenRouter the milliseconds since 1970, the IETF's draft seconds."""
    headers = {f"{prefix}-limit": "20", f"{prefix}-remaining": "1", f"{prefix}-reset": reset}
    assert requests(headers) == LimitWindow(20, 1, seconds)


def anthropic(kind: str, limit: str, remaining: str, reset: str) -> dict[str, str]:
    """Return Anthropic's headers of one limit."""
    values = {"limit": limit, "remaining": remaining, "reset": reset}
    return {f"anthropic-ratelimit-{kind}-{name}": value for name, value in values.items()}


def test_anthropic_states_dates_and_the_tightest_of_its_token_windows_counts() -> None:
    """Of all, input and output tokens the one that has the fewest left a second until its reset."""
    headers = {
        **anthropic("requests", "50", "49", "2023-11-14T22:13:21Z"),
        **anthropic("tokens", "38000", "31000", "2023-11-14T22:13:30Z"),
        **anthropic("input-tokens", "30000", "29000", "2023-11-14T22:13:22Z"),
        **anthropic("output-tokens", "8000", "2000", "2023-11-14T22:14:05+00:00"),
    }
    assert limits(headers) == LimitHeaders(LimitWindow(50, 49, 1.0), LimitWindow(8000, 2000, 45.0))
    del headers["anthropic-ratelimit-output-tokens-remaining"]
    found = limits(headers)
    assert found is not None
    assert found.tokens == LimitWindow(38_000, 31_000, 10.0)


@pytest.mark.parametrize(
    ("reset", "seconds"),
    [
        ("2023-11-14T22:13:20Z", 0.001),  # this second, rounded down
        ("2023-11-14T22:13:20.500Z", 0.5),
        ("2023-11-14T22:13:40", 20.0),
        ("2023-11-14T23:13:40+01:00", 20.0),
        ("2023-11-14T22:13:00Z", None),
        ("2093-11-14T22:13:20Z", None),
        ("2023-13-14T22:13:20Z", None),
        ("Tomorrow", None),
        ("-1", None),
        ("0", None),
    ],
)
def test_dates_are_seconds_from_now(reset: str, seconds: float | None) -> None:
    """What is past, absurd or far away is unknown."""
    found = requests(anthropic("requests", "50", "49", reset))
    assert found == LimitWindow(50, 49, seconds)


@pytest.mark.parametrize("absurd", ["-1", "nan", "inf", "", "soon", "1e400"])
def test_absurd_numbers_are_unknown(absurd: str) -> None:
    """A limiter that believed them would stop for ever."""
    names = ("x-ratelimit-limit-requests", "x-ratelimit-remaining-requests", "x-ratelimit-reset-requests")
    assert limits(dict.fromkeys(names, absurd)) is None
    assert requests({names[1]: "5", names[2]: absurd}) == LimitWindow(remaining=5)


def test_contradictions_are_unknown() -> None:
    """More left than the limit, a limit of nothing, a reset in the past or in a year."""
    assert requests({"x-ratelimit-limit-requests": "5", "x-ratelimit-remaining-requests": "9"}) == LimitWindow(limit=5)
    assert requests({"x-ratelimit-limit-requests": "0"}) is None
    for reset in ("1699999999", "0s", "9000h"):
        headers = {"x-ratelimit-remaining-requests": "5", "x-ratelimit-reset-requests": reset}
        assert requests(headers) == LimitWindow(remaining=5)


def test_retry_after_counts_only_where_it_is_a_demand() -> None:
    """A 200 or a 400 may carry one too, which means nothing."""
    headers = {"retry-after": "7", "retry-after-ms": "6500"}
    for status in (429, 503, 529):
        assert limits(headers, status) == LimitHeaders(retry_after=6.5)
    for status in (200, 400, 500):
        assert limits(headers, status) is None


def test_recorded_headers_are_understood(recordings: Path) -> None:
    """Every limit that a recorded answer states is read, and none is absurd."""
    stated = 0
    with gzip.open(recordings / "openai-chat.jsonl.gz", "rt", encoding="utf-8") as lines:
        for pair in map(json.loads, lines):
            headers = {name.lower(): value for name, value in pair["response"]["headers"].items()}
            limits = parse_limits(headers, status=pair["response"]["status"], wall_now=1.7e9)
            assert (limits is not None) == any("x-ratelimit-remaining" in name for name in headers)
            if limits is None:
                continue
            stated += 1
            assert limits.retry_after is None
            for window in (limits.requests, limits.tokens):
                assert window is None or window.reset is None or 0 < window.reset <= 86_400
    assert stated == 344
