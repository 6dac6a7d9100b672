"""Names of repositories on the Hub: ``OWNER/REPO[@REVISION]``."""

from __future__ import annotations

import re
from dataclasses import dataclass

from zoo.errors import HubError

_PART = r"[A-Za-z0-9](?:[A-Za-z0-9_]|[.-](?![.-])){0,94}"
_REPO = re.compile(rf"(?P<owner>{_PART})/(?P<name>{_PART})(?:@(?P<revision>[A-Za-z0-9][\w./-]{{0,199}}))?", re.ASCII)
COMMIT = re.compile(r"[0-9a-f]{40}")


@dataclass(frozen=True)
class Repo:
    """A model repository on the Hub, and which of its commits, branches or tags is meant (None: its main branch)."""

    owner: str
    name: str
    revision: str | None = None

    @classmethod
    def parse(cls, text: str, revision: str | None = None) -> Repo:
        """Read ``OWNER/REPO[@REVISION]``; `revision` gives it apart.

        Raises:
            HubError: it reads otherwise, or names two different revisions.
        """
        if not isinstance(text, str):
            raise HubError(f"{str(text)[:80]!r} ({type(text).__name__}) names no Hub repository: write OWNER/REPO.")
        whole = text if revision is None or text.endswith(f"@{revision}") else f"{text}@{revision}"
        found = _REPO.fullmatch(whole)
        if not found or ".." in whole or whole.endswith(("/", ".")) or found["name"].endswith((".git", "-", ".")):
            raise HubError(
                f"{whole[:120]!r} names no Hub repository: write OWNER/REPO or OWNER/REPO@REVISION, such as "
                "acme/cats@v1, of letters, digits, '-', '_' and '.'."
            )
        return cls(found["owner"], found["name"], found["revision"])

    @property
    def id(self) -> str:
        return f"{self.owner}/{self.name}"

    @property
    def pinned(self) -> bool:
        """Whether the revision is a whole commit hash, which nobody can move."""
        return COMMIT.fullmatch(self.revision or "") is not None

    def __str__(self) -> str:
        return f"{self.id}@{self.revision[:10] if self.pinned else self.revision}" if self.revision else self.id
