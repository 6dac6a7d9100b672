"""zoo.hub against a real HTTP server: what is fetched and published, and what each fault leads to."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from hub_server import OWNER_TOKEN, READER_TOKEN, git_oid, running_hub  # noqa: F401

import zoo.hub
from zoo.errors import HubError
from zoo.hub import fetch, upload
from zoo.repositories import Repo

WEIGHTS = bytes(range(256)) * 64


def model_files(config: bytes = b'{"architecture": "dcgan"}', weights: bytes = WEIGHTS) -> dict[str, bytes]:
    files = {"config.json": config, "model.safetensors": weights, "README.md": b"---\nlicense: mit\n---\n# Cats\n"}
    facts = {name: {"sha256": hashlib.sha256(body).hexdigest(), "size": len(body)} for name, body in files.items()}
    return {**files, "manifest.json": json.dumps({"files": facts}).encode()}


def message_of(call) -> str:
    """Return the message of the HubError that `call` raises, checked to be one line without a token."""
    with pytest.raises(HubError) as caught:
        call()
    text = str(caught.value)
    assert "\n" not in text
    assert "hf_" not in text
    return text


def blobs(cache: Path) -> list[Path]:
    return sorted(cache.rglob("blobs/*"))


# Names.


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("acme/cats", ("acme", "cats", None)),
        ("a.b-c_d/X.y-Z_0@v1.0", ("a.b-c_d", "X.y-Z_0", "v1.0")),
        ("acme/cats@refs/pr/1", ("acme", "cats", "refs/pr/1")),
        ("acme/cats@" + "0a" * 20, ("acme", "cats", "0a" * 20)),
    ],
)
def test_a_repository_name_is_read(text, parts):
    place = Repo.parse(text)
    assert (place.owner, place.name, place.revision) == parts


@pytest.mark.parametrize(
    "text",
    ["", "cats", "acme/", "/cats", "acme/cats/more", "acme/cats@", "acme//cats", "../cats", "acme/..", "acme/ca ts",
     "acme/cats\n", "acme/cats@../../x", "acme/cats@v1/", "acme/cats@v1.", "-acme/cats", "acme/cats-", "acme/ca--ts",
     "acme/cats.git", "acmé/cats", "acme/cats@v1@v2", "a" * 100 + "/cats", "https://huggingface.co/acme/cats",
     "acme/cats@-v"],
)  # fmt: skip
def test_a_wrong_repository_name_is_refused(text):
    assert "OWNER/REPO" in message_of(lambda: Repo.parse(text))


def test_a_revision_may_be_given_apart_but_not_twice():
    assert Repo.parse("acme/cats", "v1") == Repo.parse("acme/cats@v1") == Repo.parse("acme/cats@v1", "v1")
    assert "OWNER/REPO" in message_of(lambda: Repo.parse("acme/cats@v1", "v2"))


# Fetching.


def test_every_file_comes_from_the_one_commit_that_was_resolved(hub, tmp_path):
    first = hub.publish("acme/cats", model_files())
    hub.repositories["acme/cats"].tags["v1"] = first
    second = hub.publish("acme/cats", model_files(config=b'{"architecture": "vae"}'))
    for revision, commit in [(None, second), ("v1", first), (first, first), ("main", second)]:
        fetched = fetch("acme/cats", revision=revision, cache_dir=tmp_path / "cache")
        assert fetched.commit == commit
        assert (b"dcgan" if commit == first else b"vae") in (fetched.directory / "config.json").read_bytes()
        assert {path.name for path in fetched.directory.iterdir()} == set(model_files())
    assert hub.seen(f"/resolve/(?!{first}|{second})") == 0      # never by branch or tag


def test_a_token_reaches_the_hub_but_not_the_storage_it_redirects_to(hub):
    hub.publish("acme/secret", model_files(), private=True)
    assert fetch("acme/secret", token=OWNER_TOKEN).directory.is_dir()
    assert hub.seen("GET /storage/") == 1
    assert hub.leaks == []


def test_a_private_repository_needs_a_token_that_may_read_it(hub, monkeypatch):
    hub.publish("acme/secret", model_files(), private=True)
    assert "(401)" in message_of(lambda: fetch("acme/secret"))
    assert "(404)" in message_of(lambda: fetch("acme/secret", token=READER_TOKEN))
    assert "(401)" in message_of(lambda: fetch("acme/secret", token="hf_wrongWrongWrong"))
    monkeypatch.setenv("HF_TOKEN", OWNER_TOKEN)
    assert fetch("acme/secret").directory.is_dir()


def test_each_kind_of_not_found_has_its_own_message(hub):
    hub.publish("acme/cats", model_files())
    hub.publish("acme/other", {"README.md": b"no model", "weights.pkl": b"no"})
    repository = message_of(lambda: fetch("acme/dogs", token=READER_TOKEN))
    revision = message_of(lambda: fetch("acme/cats@v9"))
    file = message_of(lambda: fetch("acme/other"))
    assert "acme/dogs" in repository
    assert "check the name" in repository
    assert "no revision 'v9'" in revision
    assert "config.json, model.safetensors" in file
    assert "weights.pkl" in file
    assert not blobs(Path(os.environ["HF_HOME"]))


def test_a_gated_repository_says_where_to_ask(hub):
    hub.publish("acme/gated", model_files(), gated=True)
    text = message_of(lambda: fetch("acme/gated", token=READER_TOKEN))
    assert "gated (403)" in text
    assert f"{hub.endpoint}/acme/gated" in text


@pytest.mark.parametrize(
    ("request_line", "status"),
    [*(("GET /api/models", status) for status in (408, 429, 500, 502, 503, 504)), ("GET /storage", 503)],
)
def test_a_failure_that_passes_is_waited_out(hub, request_line, status):
    commit = hub.publish("acme/cats", model_files())
    hub.fail(request_line, status=status, times=2)
    assert fetch("acme/cats").commit == commit
    assert hub.seen(request_line) == 3


def test_a_failure_that_stays_ends_in_its_status(hub):
    hub.publish("acme/cats", model_files())
    hub.fail("GET /api/models", status=503, times=99)
    assert "(503)" in message_of(lambda: fetch("acme/cats"))
    assert hub.seen("GET /api/models") == 3


def test_a_long_wait_asked_for_is_reported_and_not_slept(hub):
    hub.publish("acme/cats", model_files())
    hub.fail("GET /api/models", status=429, times=99, headers={"Retry-After": "3600"})
    assert "try again in 3600 s" in message_of(lambda: fetch("acme/cats"))
    assert hub.seen("GET /api/models") == 1


def test_a_hub_that_never_answers_is_given_up(hub, monkeypatch):
    hub.publish("acme/cats", model_files())
    monkeypatch.setattr(zoo.hub, "PATIENCE", 0.2)
    hub.fail("GET /api/models", "hang", times=99)
    assert "did not answer in time" in message_of(lambda: fetch("acme/cats"))


def test_a_hub_out_of_reach_is_named(hub, monkeypatch):
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:9")
    text = message_of(lambda: fetch("acme/cats"))
    assert "http://127.0.0.1:9 cannot be reached" in text


def test_what_is_no_hub_is_named(hub, monkeypatch):
    hub.publish("acme/cats", model_files())
    monkeypatch.setenv("HF_ENDPOINT", "nonsense://")
    message_of(lambda: fetch("acme/cats"))
    monkeypatch.setenv("HF_ENDPOINT", hub.endpoint)
    hub.fail("GET /api/models", status=200, body="<html>Please log in to the hotel network</html>", times=99)
    assert "resolving acme/cats" in message_of(lambda: fetch("acme/cats"))


def test_a_token_that_the_server_repeats_is_not_shown(hub):
    hub.publish("acme/cats", model_files())
    said = f"your token {OWNER_TOKEN} or secretWithoutPrefix1 is bad"
    hub.fail("GET /api/models", status=403, headers={"X-Error-Message": said}, times=9)
    assert "***" in message_of(lambda: fetch("acme/cats", token=OWNER_TOKEN))
    text = message_of(lambda: fetch("acme/cats", token="secretWithoutPrefix1"))
    assert "secretWithoutPrefix1" not in text


# Content.


def test_a_flipped_byte_is_fetched_again(hub):
    hub.publish("acme/cats", model_files())
    hub.fail("GET /storage", "flip", times=1)
    assert (fetch("acme/cats").directory / "model.safetensors").read_bytes() == WEIGHTS
    assert hub.seen("GET /storage") == 2


@pytest.mark.parametrize("request_line", ["GET /storage", "GET .*/config.json", "GET .*/manifest.json"])
def test_a_byte_that_stays_flipped_is_refused_and_never_served_from_the_cache(hub, request_line, monkeypatch):
    commit = hub.publish("acme/cats", model_files())
    hub.fail(request_line, "flip", times=2)
    assert "arrived altered" in message_of(lambda: fetch("acme/cats"))
    for blob in blobs(Path(os.environ["HF_HOME"])):
        assert blob.read_bytes() in model_files().values()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    message_of(lambda: fetch("acme/cats", revision=commit))
    monkeypatch.delenv("HF_HUB_OFFLINE")
    fetched = fetch("acme/cats", revision=commit)
    assert {path.name: path.read_bytes() for path in fetched.directory.iterdir()} == model_files()


def test_files_that_disagree_with_their_manifest_are_refused(hub):
    other = {**model_files(), "model.safetensors": WEIGHTS[::-1]}
    hub.publish("acme/cats", other)
    assert "model.safetensors" in message_of(lambda: fetch("acme/cats"))


def test_a_body_cut_short_is_completed(hub):
    hub.publish("acme/cats", model_files())
    hub.fail("GET /storage", "short", times=1)
    assert (fetch("acme/cats").directory / "model.safetensors").read_bytes() == WEIGHTS


def test_a_file_damaged_in_the_cache_is_fetched_again_and_refused_offline(hub, monkeypatch):
    commit = hub.publish("acme/cats", model_files())
    weights = fetch("acme/cats").directory / "model.safetensors"
    for revision in (None, commit):
        weights.resolve().write_bytes(WEIGHTS[:-1] + b"\0")
        monkeypatch.setenv("HF_HUB_OFFLINE", "1")
        assert "model.safetensors of acme/cats" in message_of(lambda: fetch("acme/cats", revision=revision))  # noqa: B023
        monkeypatch.delenv("HF_HUB_OFFLINE")
        assert fetch("acme/cats", revision=revision).directory == weights.parent
        assert weights.read_bytes() == WEIGHTS


# The cache.


def test_what_is_cached_loads_offline_without_a_request(hub, monkeypatch):
    commit = hub.publish("acme/cats", model_files())
    hub.repositories["acme/cats"].tags["v1"] = commit
    online = [fetch("acme/cats"), fetch("acme/cats@v1"), fetch(f"acme/cats@{commit}")]
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    hub.requests.clear()
    assert [fetch("acme/cats"), fetch("acme/cats@v1"), fetch(f"acme/cats@{commit}")] == online
    assert hub.requests == []


def test_what_is_not_cached_says_so_offline(hub, monkeypatch):
    hub.publish("acme/cats", model_files())
    fetch("acme/cats")
    hub.requests.clear()
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("acme/dogs", "acme/cats@v2", "acme/cats@" + "0" * 40):
        assert "not in the cache" in message_of(lambda: fetch(name))  # noqa: B023
    assert "HF_HUB_OFFLINE" in message_of(lambda: upload("acme/cats", model_files(), message="x", token=OWNER_TOKEN))
    assert hub.requests == []


def test_a_cached_commit_needs_no_request_even_online(hub):
    commit = hub.publish("acme/cats", model_files())
    fetch("acme/cats")
    hub.requests.clear()
    assert fetch("acme/cats", revision=commit).commit == commit
    assert hub.requests == []


def test_without_the_hub_the_copy_of_last_time_serves_with_a_warning(hub):
    commit = hub.publish("acme/cats", model_files())
    fetch("acme/cats")
    hub.fail("GET /api/models", status=503, times=99)
    with pytest.warns(UserWarning, match=commit[:10]):
        assert fetch("acme/cats").commit == commit
    hub.faults.clear()
    hub.fail("GET /api/models", status=403, times=99)      # a refusal is no outage
    assert "(403)" in message_of(lambda: fetch("acme/cats"))


def test_offline_and_the_cache_folder_are_taken_from_the_environment_of_a_fresh_process(hub, tmp_path):
    commit = hub.publish("acme/cats", model_files())
    script = "from zoo.hub import fetch; print(fetch('acme/cats').commit)"
    environment = {**os.environ, "HF_HUB_CACHE": str(tmp_path / "mine")}
    command = [sys.executable, "-c", script]
    assert subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout.strip() == commit
    assert blobs(tmp_path / "mine")
    hub.requests.clear()
    environment["HF_HUB_OFFLINE"] = "1"
    offline = subprocess.run(command, env=environment, check=True, capture_output=True, text=True)
    assert offline.stdout.strip() == commit
    assert hub.requests == []


def test_importing_the_module_imports_no_client():
    script = "import sys, zoo.hub; print([m for m in ('huggingface_hub', 'torch') if m in sys.modules])"
    found = subprocess.run([sys.executable, "-c", script], check=True, capture_output=True, text=True)
    assert found.stdout.strip() == "[]"


# Uploading.


def put(files=None, repo="acme/cats", **options):
    return upload(repo, files or model_files(), message="Publish", **{"token": OWNER_TOKEN, **options})


def test_a_publication_is_one_commit_that_can_be_fetched(hub):
    made = put()
    commits = hub.repositories["acme/cats"].commits
    assert [commit.message for commit in commits] == ["initial commit", "Publish"]
    assert (made.commit, made.created) == (commits[-1].sha, True)
    assert made.url == f"{hub.endpoint}/acme/cats"
    fetched = fetch("acme/cats")
    assert fetched.commit == made.commit
    assert {path.name: path.read_bytes() for path in fetched.directory.iterdir()} == model_files()
    assert hub.leaks == []


def test_the_same_content_makes_no_second_commit(hub, tmp_path):
    first = put()
    on_disk = {name: tmp_path / name for name in model_files()}
    for name, path in on_disk.items():
        path.write_bytes(model_files()[name])
    second = put(on_disk)
    assert (second.commit, second.created) == (first.commit, False)
    assert len(hub.repositories["acme/cats"].commits) == 2
    assert hub.seen("POST .*/commit/") == 1


def test_a_change_makes_one_commit_and_leaves_other_files_alone(hub):
    put({**model_files(), "notes.txt": b"mine"})
    put(model_files(weights=WEIGHTS[::-1]))
    commits = hub.repositories["acme/cats"].commits
    assert len(commits) == 3
    assert commits[-1].files["model.safetensors"] == WEIGHTS[::-1]
    assert commits[-1].files["notes.txt"] == b"mine"


def test_a_private_repository_is_made_private_and_a_public_one_is_not_taken_for_private(hub):
    put(private=True)
    assert hub.repositories["acme/cats"].private
    put(repo="acme/open")
    assert "is public" in message_of(lambda: put(model_files(weights=b"other"), repo="acme/open", private=True))
    assert len(hub.repositories["acme/open"].commits) == 2


@pytest.mark.parametrize("step", ["/api/repos/create", "GET /api/models", "/validate-yaml", "/preupload/", "/commit/"])
@pytest.mark.parametrize("kind", ["status", "drop", "lost"])
def test_a_publication_survives_a_fault_at_each_step(hub, step, kind):
    hub.fail(step, kind)
    made = put()
    commits = hub.repositories["acme/cats"].commits
    assert [commit.message for commit in commits] == ["initial commit", "Publish"]
    assert (made.commit, made.created) == (commits[-1].sha, True)


@pytest.mark.parametrize("tells_oids", [True, False])
def test_a_commit_whose_answer_was_lost_is_found_and_not_repeated(hub, tells_oids):
    hub.tells_oids = tells_oids
    hub.fail("/commit/", "lost")
    made = put()
    commits = hub.repositories["acme/cats"].commits
    assert [commit.message for commit in commits] == ["initial commit", "Publish"]
    assert (made.commit, made.created) == (commits[-1].sha, True)


def test_a_server_without_xet_storage_says_what_to_set(hub, monkeypatch):
    from huggingface_hub import constants

    pytest.importorskip("hf_xet")
    monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", False)
    assert "HF_HUB_DISABLE_XET=1" in message_of(put)


@pytest.mark.parametrize(
    "step",
    ["/api/repos/create", "GET /api/models", "/validate-yaml", "/preupload/", "/batch", "PUT ", "/verify", "/commit/"],
)
def test_a_publication_cut_at_any_step_leaves_nothing_half_done_and_can_be_repeated(hub, step):
    hub.fail(step, status=400, times=99)
    message_of(put)
    repository = hub.repositories.get("acme/cats")
    assert repository is None or len(repository.commits) == 1
    hub.faults.clear()
    assert put().created
    assert hub.repositories["acme/cats"].commits[-1].files.items() >= model_files().items()


def test_a_change_by_somebody_else_meanwhile_is_not_overwritten(hub):
    put()

    def meddle(line: str):
        if "preupload" in line:
            hub.publish("acme/cats", {"config.json": b"theirs"}, "Theirs")

    hub.watch = meddle
    assert "somebody else" in message_of(lambda: put(model_files(weights=b"mine")))
    commits = hub.repositories["acme/cats"].commits
    assert [commit.message for commit in commits] == ["initial commit", "Publish", "Theirs"]


def test_publishing_needs_a_token_with_the_right(hub):
    assert "(401)" in message_of(lambda: put(token=None))
    assert "(401)" in message_of(lambda: put(token="hf_wrongWrongWrong"))
    assert "(403" in message_of(lambda: put(token=READER_TOKEN))
    put()
    assert "(403" in message_of(lambda: put(model_files(weights=b"other"), token=READER_TOKEN))


def test_a_file_that_the_repository_ignores_is_missed(hub):
    put({".gitignore": b"README.md\n"})
    assert "README.md" in message_of(put)


def test_a_publication_goes_to_the_main_branch_only(hub):
    assert "main branch" in message_of(lambda: put(repo="acme/cats@v1"))
    assert hub.requests == []


def test_the_server_counts_like_git():
    # The oracle of these tests: git hash-object of "hello\n" is a published value.
    assert git_oid(b"hello\n") == "ce013625030ba8dba906f756967f9e9ca394464a"
