"""What a failed exchange with the Hub means, in one line that never holds a token."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, NamedTuple

PASSING = frozenset({408, 429, 500, 502, 503, 504})      # statuses that may pass by themselves

_LOGIN = "log in with 'hf auth login' or pass a token that may"
_BY_CODE = {
    "RepoNotFound": f"The Hub shows you no repository {{id}} ({{status}}): check the name; if it is private, {_LOGIN}.",
    "RevisionNotFound": "{id} has no revision {revision!r} ({status}): give a branch, tag or commit listed at {page}.",
    "EntryNotFound": "{name} has no such file, {doing} it ({status}): it is no complete model of zoo.publish.",
    "GatedRepo": f"{{id}} is gated ({{status}}): ask for access at {{page}}, then {_LOGIN}.",
}
_BY_STATUS = {
    401: f"The Hub did not accept the token, {{doing}} {{name}} (401): {_LOGIN}.",
    403: "The Hub forbids {doing} {name} with this token (403{said}): use one with that right, or a name of your own.",
    404: "The Hub found nothing, {doing} {name} (404{said}): check the name and HF_ENDPOINT.",
    412: "{id} was changed by somebody else meanwhile (412): nothing was written; look at it and publish again.",
    429: "The Hub limits how often it is asked, {doing} {name} (429): {wait}; logged in, the limit is higher.",
}
_FAILED = "The Hub failed, {doing} {name} ({status}{said}): {wait}."
_REFUSED = "The Hub refused {doing} {name} ({status}{said})."


class Exchange(NamedTuple):
    """What was being done, for the message."""

    id: str                  # OWNER/REPO
    revision: str | None
    name: str                # as shown: OWNER/REPO@REVISION
    doing: str               # "fetching config.json of"
    endpoint: str


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield the error and what it was raised from, outermost first."""
    seen: BaseException | None = error
    while seen is not None:
        yield seen
        seen = seen.__cause__


def answer_of(error: BaseException) -> Any:
    """Return the first HTTP answer with an error status among the causes, or None."""
    answers = (getattr(cause, "response", None) for cause in causes(error))
    return next((answer for answer in answers if getattr(answer, "status_code", 0) >= 400), None)


def retry_after(answer: Any) -> float:
    """Return how many seconds the Hub asks to wait, 0 where it does not say."""
    said = answer.headers.get("Retry-After", "")
    return float(said) if re.fullmatch(r"[0-9]{1,6}", said) else 0.0


def explain_answer(answer: Any, at: Exchange) -> str:
    """Return what an HTTP answer with an error status means."""
    status, headers = int(answer.status_code), answer.headers
    said, seconds = headers.get("X-Error-Message", "")[:200].rstrip("."), retry_after(answer)
    template = _BY_CODE.get(headers.get("X-Error-Code", "")) or _BY_STATUS.get(status)
    return (template or (_FAILED if status >= 500 else _REFUSED)).format(
        **at._asdict(),
        page=f"{at.endpoint}/{at.id}",
        status=status,
        said=f": {said}" if said else "",
        wait=f"try again in {seconds:.0f} s" if seconds else "try again later",
    )


def explain_silence(error: BaseException, at: Exchange) -> str:
    """Return what a network failure without an answer means."""
    late = any("Timeout" in type(cause).__name__ for cause in causes(error))
    what = "did not answer in time" if late else "cannot be reached"
    return f"The Hub at {at.endpoint} {what}, {at.doing} {at.name}: check the network and HF_ENDPOINT, or try again."


def explain_other(error: BaseException, at: Exchange) -> str:
    """Return what any other failure means: a full disk, a cache that cannot be written, an answer no Hub would give."""
    if "xet-write-token" in str(error):
        return f"The Hub at {at.endpoint} has no Xet storage, {at.doing} {at.name}: try with HF_HUB_DISABLE_XET=1 set."
    for cause in causes(error):
        if isinstance(cause, OSError) and cause.strerror:
            return f"Cannot store, {at.doing} {at.name}: {cause.strerror}; free the disk or choose another cache_dir."
    return f"{type(error).__name__}, {at.doing} {at.name}: {' '.join(str(error).split())[:300]}"


def clean(text: str, secret: str | None = None) -> str:
    """Return the text on one line, without the secret and without anything else that looks like a token."""
    line = " ".join(text.split())
    return re.sub(r"hf_[A-Za-z0-9_]{8,}", "***", line.replace(secret, "***") if secret else line)
