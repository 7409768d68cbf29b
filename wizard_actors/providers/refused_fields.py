"""Whether a provider's refusal is one of streams. Pure."""

from __future__ import annotations

import re
from typing import Final

from wizard_actors.providers.error_body import ErrorBody
from wizard_actors.providers.masking import SEARCHED

__all__ = ["refuses_stream", "refuses_stream_beside"]

# As a field or a feature, not as a word: "unexpected end of stream", "contact support, or read a stream of docs".
REFUSED: Final = r"(?:support|allow|permit|accept|enabl|recogni[sz]|implement|available|possible)\w{0,3}\b"
NOT: Final = rf"(?:\bnot|n't|\bno longer|\bcannot)(?: \w{{1,12}}){{0,2}} {REFUSED}"
BAD: Final = r"(?:unsupported|unknown|unrecogni[sz]ed|unavailable|disabled|forbidden|prohibited)\b"
FIELD: Final = r"(?:parameter|argument|field|property|key|option|value|input|mode|request|response|output)s?"
IN_A_SENTENCE: Final = r"(?:[^.;:,\n]|\.(?=\S)){0,80}?"

REFUSES_STREAM: Final = re.compile(
    rf"(?:(?<![-\w])streaming\b|['\"`]stream['\"`]){IN_A_SENTENCE}(?:{NOT}|{BAD})"
    rf"|(?<!\w)stream(?: ?[=:] ?true)?(?: {FIELD})? (?:is |are |was |does |do )?(?:{NOT}|{BAD})"
    rf"|^\W{{0,3}}(?:body\.)?stream\W{{1,3}}{IN_A_SENTENCE}(?:{NOT}|{BAD})"
    rf"|{NOT}(?:\W{{1,2}}(?:the|a|any|to|set|use|using|for|{FIELD})){{0,3}}\W{{1,3}}stream(?:ing)?\b"
    rf"|(?:{BAD}|\bunexpected|\binvalid|\bextra)(?: \w{{1,12}}){{0,2}} {FIELD}(?: supplied| provided| given)?"
    r"\W{1,3}stream(?:ing)?\b"
    rf"|{BAD}\W{{1,3}}streaming\b"
    r"|\bno (?:streaming\b|stream support)|\bnon-?stream(?:ing)? only|\bonly (?:supports? )?non-?stream"
    r"|\bstream['\"`]?(?: ?[=:] ?| to | must be | should be )['\"`]?false\b",
    re.IGNORECASE | re.MULTILINE,
)

BESIDE: Final = re.compile(
    r"\b(?:when|while|together|combin\w{1,9}|conjunction|(?:this|your) (?:prompt|request|conversation)"
    r"|tools?|functions?|json|schemas?|structured|grammars?|images?|vision|audio|reasoning|thinking"
    r"|response_format|tool_choice|parallel_tool_calls|(?:top_)?logprobs|best_of|reasoning_effort)\b"
    r"|['\"`](?!stream_)[a-z]{1,30}_\w{1,60}['\"`]|\bn ?[>=]",
    re.IGNORECASE,
)


def refuses_stream(refused: ErrorBody) -> bool:
    """Say whether a refusal is one of streams, rather than of anything else in the request."""
    return "stream" in refused.param.split() or REFUSES_STREAM.search(refused.message[:SEARCHED]) is not None


def refuses_stream_beside(refused: ErrorBody) -> bool:
    """Say whether streams are refused beside something else that the call asks for: another call may have one."""
    return refuses_stream(refused) and BESIDE.search(refused.message[:SEARCHED]) is not None
