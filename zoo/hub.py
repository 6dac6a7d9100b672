"""The Hub: fetch a published model at one commit and check it; upload files as one commit.

The only module that imports huggingface_hub, and only when a request or the cache is needed. ``HF_ENDPOINT``,
``HF_HUB_OFFLINE``, ``HF_HUB_CACHE``, ``HF_HOME`` and the saved login mean what they mean to every client of the Hub.
"""

from __future__ import annotations

import os
import sys
import time
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from json import JSONDecodeError
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from zoo import hub_errors
from zoo.errors import HubError
from zoo.repositories import COMMIT, Repo
from zoo.snapshots import damaged, digest, discard

if TYPE_CHECKING:
    from huggingface_hub import HfApi

FILES = ("config.json", "model.safetensors")     # what a published model must hold
EXTRAS = ("manifest.json", "README.md")          # fetched where they are
DELAYS = (1.0, 3.0)                              # seconds before each further try of what may pass by itself
PATIENCE = 60.0                                  # seconds to wait for one answer; the longest Retry-After obeyed

_T = TypeVar("_T")


@dataclass(frozen=True)
class Fetched:
    """Files of one commit on this disk, checked."""

    directory: Path
    commit: str


@dataclass(frozen=True)
class Publication:
    """What became of a publication."""

    url: str                                # the repository's page; "" for a dry run
    commit: str                             # the commit that holds the files; "" for a dry run
    created: bool                           # False: the repository held exactly these files already, or a dry run
    files: tuple[str, ...] = ()             # names, sorted
    directory: Path | None = None           # where a dry run wrote them


class _Passing(HubError):
    """A failure that may pass by itself."""


class _Absent(HubError):
    """The repository does not exist, or not for this token."""


def fetch(
    repo: str,
    *,
    revision: str | None = None,
    cache_dir: str | Path | None = None,
    token: str | None = None,
    files: Sequence[str] = FILES,
) -> Fetched:
    """Return a directory that holds `files`, and the manifest and card where there are some, of one commit.

    The commit is resolved first and everything is fetched at it. Every file is compared with the Hub's own hash of it
    and with the manifest; one that differs is fetched once more, then refused and removed. A commit that is cached
    whole, and any revision under ``HF_HUB_OFFLINE=1``, is served without a request. When the Hub cannot be reached, the
    copy that the revision stood for last time is served with a warning.

    Args:
        repo: ``OWNER/REPO[@REVISION]``.
        revision: commit, branch or tag; None takes the main branch.
        token: None uses the saved login, if any.
        files: names that must be there.

    Raises:
        HubError: the name, the access, the network or the content is at fault; the message says which.
    """
    place, cache = Repo.parse(repo, revision), _cache(cache_dir)
    cached = _cached(place, cache, files)
    if _offline():
        if cached is None:
            raise HubError(f"{place} is not in the cache and HF_HUB_OFFLINE forbids requests: fetch it once without.")
        return _sound(cached, place)
    if cached is not None and place.pinned and not damaged(cached.directory):
        return cached
    api = _api(token)
    try:
        commit, names = _resolve(api, place, files)
    except _Passing as failure:
        if cached is None:
            raise
        warnings.warn(f"{failure} Using the copy fetched before, commit {cached.commit[:10]}.", stacklevel=2)
        return _sound(cached, place)
    fetched = _download_all(api, replace(place, revision=commit), names, cache)
    _remember(place, fetched)
    return fetched


def held(repo: str, revision: str | None = None) -> Path | None:
    """Return where the cache holds a published model whole, or None; makes no request."""
    cached = _cached(Repo.parse(repo, revision), _cache(None), FILES)
    return cached.directory if cached else None


def upload(
    repo_id: str,
    files: Mapping[str, Path | bytes],
    *,
    message: str,
    private: bool = False,
    token: str | None = None,
) -> Publication:
    """Make the repository if need be and put all `files` into it in one commit, or none where it holds them already.

    The commit names its parent, so a change made by somebody else in between is never overwritten, and a try that is
    repeated because its answer was lost makes no second commit.

    Args:
        repo_id: ``OWNER/REPO``; the files go to its main branch.
        files: name in the repository -> file or content.
        message: the commit's first line.
        private: a new repository is made private; an existing public one is refused.

    Raises:
        HubError: the name, the access, the network or a change by somebody else is at fault.
    """
    place = Repo.parse(repo_id)
    if place.revision is not None:
        raise HubError(f"{repo_id!r}: a publication goes to the main branch; write {place.id}.")
    if _offline():
        raise HubError(f"Cannot publish to {place}: HF_HUB_OFFLINE forbids requests; unset it, or make a dry run.")
    api = _api(token)
    try:
        before = _info(api, place, "reading")
    except _Absent:
        _attempt(lambda: api.create_repo(place.id, private=private, exist_ok=True), place, "making", api)
        before = _info(api, place, "reading")
    if private and not before.private:
        raise HubError(f"{place} exists and is public: make it private in its settings, or choose another name.")
    done = Publication(f"{api.endpoint}/{place.id}", before.sha, created=False, files=tuple(sorted(files)))
    if not _lacking(before, files):
        return done
    try:
        _attempt(lambda: _commit(api, place, files, message, before.sha), place, "publishing to", api)
    except HubError as failure:
        # The commit may have been made and only its answer lost: what the repository holds decides.
        with suppress(HubError):
            after = _info(api, place, "reading")
            if after.sha != before.sha and not _lacking(after, files):
                return replace(done, commit=after.sha, created=True)
        raise failure from None
    after = _info(api, place, "reading")
    if lacking := _lacking(after, files):
        raise HubError(f"{place} does not hold {', '.join(lacking)} as sent: has it a .gitignore, or another writer?")
    return replace(done, commit=after.sha, created=True)


# Fetching.


def _resolve(api: HfApi, place: Repo, files: Sequence[str]) -> tuple[str, list[str]]:
    """Return the commit that the revision stands for, and the names to fetch, required ones last.

    So a cache that holds the required files of a commit holds its manifest too.
    """
    info = _info(api, place, "resolving")
    there = {sibling.rfilename for sibling in info.siblings or []}
    ours = set(FILES) <= set(files)
    if absent := [name for name in files if name not in there]:
        why = "so it is no model that zoo.publish made" if ours else "which these weights are read from"
        raise HubError(
            f"{place} holds no file {', '.join(absent)}, {why}; "
            f"it holds: {', '.join(sorted(there))[:200] or 'nothing'}."
        )
    extras = [name for name in EXTRAS if name in there and name not in files] if ours else []
    return str(info.sha), extras + list(files)


def _download_all(api: HfApi, place: Repo, names: Sequence[str], cache: Path | None) -> Fetched:
    folders = {_root(_download(api, place, name, cache), name) for name in names}
    directory = folders.pop()
    if directory.name != place.revision or folders:
        raise HubError(f"The Hub sent files of another commit than {place}, which it had named itself: try again.")
    for name in damaged(directory):
        _download(api, place, name, cache, again=True)
    if bad := damaged(directory):
        discard(directory, bad)
        raise HubError(f"{', '.join(bad)} of {place} arrived altered twice, not as hashed, and was removed: try again.")
    return Fetched(directory, directory.name)


def _download(api: HfApi, place: Repo, name: str, cache: Path | None, *, again: bool = False) -> Path:
    def work() -> str:
        return api.hf_hub_download(place.id, name, revision=place.revision, cache_dir=cache, force_download=again)

    return Path(_attempt(work, place, f"fetching {name} of", api))


def _cached(place: Repo, cache: Path | None, files: Sequence[str]) -> Fetched | None:
    """Return what the cache holds for the revision if that is whole, without any request."""
    from huggingface_hub import try_to_load_from_cache

    found = {name: try_to_load_from_cache(place.id, name, cache_dir=cache, revision=place.revision) for name in files}
    roots = [_root(Path(path), name) for name, path in found.items() if isinstance(path, str)]
    return Fetched(roots[0], roots[0].name) if roots and len(roots) == len(files) else None


def _root(path: Path, name: str) -> Path:
    """Return a commit's folder, given the place of one of its files."""
    return path.parents[name.count("/")]


def _sound(cached: Fetched, place: Repo) -> Fetched:
    if bad := damaged(cached.directory):
        raise HubError(f"{', '.join(bad)} of {place} is damaged in the cache: fetch it again with the Hub in reach.")
    return cached


def _remember(place: Repo, fetched: Fetched) -> None:
    """Write down which commit a branch or tag stood for, where every client of the Hub looks when offline."""
    if place.pinned:
        return
    reference = fetched.directory.parent.parent / "refs" / (place.revision or "main")
    temporary = reference.with_name(f"{reference.name}.{os.getpid()}.tmp")
    with suppress(OSError):      # a cache that cannot be written still serves
        reference.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_text(fetched.commit)
        temporary.replace(reference)


# Uploading.


def _info(api: HfApi, place: Repo, doing: str) -> Any:
    """Return the Hub's description of a repository at a revision, whose commit is a whole hash."""

    def work() -> Any:
        return api.model_info(place.id, revision=place.revision, files_metadata=True, timeout=PATIENCE)

    info = _attempt(work, place, doing, api)
    if not COMMIT.fullmatch(info.sha or ""):
        raise HubError(f"The answer for {place} names no commit: is {api.endpoint} (HF_ENDPOINT) a Hub?")
    return info


def _commit(api: HfApi, place: Repo, files: Mapping[str, Path | bytes], message: str, parent: str) -> None:
    from huggingface_hub import CommitOperationAdd

    operations = [CommitOperationAdd(name, content) for name, content in sorted(files.items())]
    with _bars_on_terminals_only():
        api.create_commit(place.id, operations, commit_message=message, parent_commit=parent)


@contextmanager
def _bars_on_terminals_only() -> Iterator[None]:
    import huggingface_hub.utils

    bars: Any = huggingface_hub.utils
    hide = not sys.stderr.isatty() and not bars.are_progress_bars_disabled()
    if hide:
        bars.disable_progress_bars()
    try:
        yield
    finally:
        if hide:
            bars.enable_progress_bars()


def _lacking(info: Any, files: Mapping[str, Path | bytes]) -> list[str]:
    """Return the names of the files whose content the repository does not hold."""
    there = {sibling.rfilename: sibling for sibling in info.siblings or []}
    large = {name: sibling.lfs.sha256 for name, sibling in there.items() if sibling.lfs}
    small = {name: sibling.blob_id for name, sibling in there.items() if not sibling.lfs}
    return [
        name
        for name, content in sorted(files.items())
        if (large[name] != digest(content, "sha256") if name in large else small.get(name) != digest(content, "sha1"))
    ]


# The client.


def _api(token: str | None) -> HfApi:
    from huggingface_hub import HfApi

    return HfApi(endpoint=os.environ.get("HF_ENDPOINT") or None, token=token, library_name="genzoo")


def _offline() -> bool:
    from huggingface_hub import constants

    said = os.environ.get("HF_HUB_OFFLINE")
    return constants.HF_HUB_OFFLINE if said is None else said.upper() in {"1", "ON", "YES", "TRUE"}


def _cache(cache_dir: str | Path | None) -> Path | None:
    """Return the cache to use; None leaves it to huggingface_hub, which read its environment when it was imported."""
    home = os.environ.get("HF_HOME")
    chosen = cache_dir or os.environ.get("HF_HUB_CACHE") or (Path(home) / "hub" if home else None)
    return Path(chosen).expanduser() if chosen else None


def _attempt(work: Callable[[], _T], place: Repo, doing: str, api: HfApi) -> _T:
    """Return what `work` returns, tried again while its failure may pass by itself; any failure becomes one line."""
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    for delay in (*DELAYS, None):
        try:
            return _patiently(work)
        except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError, RuntimeError, LookupError, TypeError) as error:
            failure, wait = _failure(error, place, doing, api)
        if delay is None or wait > PATIENCE or not isinstance(failure, _Passing):
            break
        time.sleep(max(delay, wait))
    raise failure from None      # the client's own words may quote a secret


def _patiently(work: Callable[[], _T]) -> _T:
    """Run `work` with a limit on each wait for an answer: the client that huggingface_hub shares has none by itself."""
    from huggingface_hub.utils import get_session  # type: ignore[attr-defined]

    session = get_session()
    before, session.timeout = session.timeout, PATIENCE
    try:
        return work()
    finally:
        session.timeout = before


def _failure(error: Exception, place: Repo, doing: str, api: HfApi) -> tuple[HubError, float]:
    """Return the error to raise, and how many seconds the Hub asks to wait before another try."""
    from huggingface_hub import get_token
    from huggingface_hub.utils import httpx  # type: ignore[attr-defined]

    at = hub_errors.Exchange(place.id, place.revision, str(place), doing, api.endpoint)
    kind: type[HubError] = HubError
    answer, wait = hub_errors.answer_of(error), 0.0
    if answer is not None:
        text, wait = hub_errors.explain_answer(answer, at), hub_errors.retry_after(answer)
        if answer.status_code in hub_errors.PASSING:
            kind = _Passing
        elif answer.headers.get("X-Error-Code") == "RepoNotFound":
            kind = _Absent
    elif any(isinstance(cause, httpx.TransportError) for cause in hub_errors.causes(error)):
        text, kind = hub_errors.explain_silence(error, at), _Passing
    else:
        text = hub_errors.explain_other(error, at)
        if isinstance(error, JSONDecodeError):      # a proxy's page instead of the Hub's answer
            kind = _Passing
    secret = api.token if isinstance(api.token, str) else get_token()
    return kind(hub_errors.clean(text, secret)), wait
