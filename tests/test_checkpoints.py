"""Checkpoints: whole or absent, equal to what was saved, never of broken values, and passed over when damaged."""

from __future__ import annotations

import hashlib
import json
import logging
import os
import pickle
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from zoo.errors import RunError
from zoo.training import checkpoints, tensorfile
from zoo.training.checkpoints import Checkpoint
from zoo.training.directory import publish
from zoo.training.manifest import Manifest
from zoo.training.saving import Saver

FILES = ("model.safetensors", "optimizer.safetensors", "ranks.safetensors", "state.json", "manifest.json")
CANARY = f"{tempfile.gettempdir()}/executed-by-a-checkpoint-{os.getpid()}"      # made by nobody


def made(step: int, **parts) -> Checkpoint:
    torch.manual_seed(step)
    given = {
        "model": {"generator.weight": torch.randn(8, 4, 3, 3), "generator.count": torch.tensor(step)},
        "optimizer": {"generator/exp_avg/generator.weight": torch.randn(8, 4, 3, 3)},
        "ranks": {"0/rng/torch": torch.get_rng_state(), "1/buffer/bn.running_mean": torch.randn(4)},
        "state": {"kimg": step / 100, "scalers": {"generator": {"scale": 65536.0}}, "faults": []},
        "about": {"kimg": step / 100, "config": "ab" * 32, "versions": {"torch": torch.__version__}, "processes": 2},
    }
    return Checkpoint(step, **{**given, **parts})


def assert_same(found: Checkpoint, wanted: Checkpoint) -> None:
    for name in ("model", "optimizer", "ranks"):
        left, right = getattr(found, name), getattr(wanted, name)
        assert set(left) == set(right)
        for key in left:
            assert left[key].dtype == right[key].dtype
            assert left[key].shape == right[key].shape
            assert raw(left[key]) == raw(right[key])
    assert (found.step, found.state, found.about) == (wanted.step, wanted.state, wanted.about)


def raw(tensor: torch.Tensor) -> bytes:
    return tensor.detach().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes()


def names(directory: Path) -> list[str]:
    return sorted(os.listdir(directory))


@pytest.fixture
def warnings(caplog):
    """Return a function that gives the warning lines so far."""
    caplog.set_level(logging.WARNING)
    return lambda: [record.getMessage() for record in caplog.records]


# What comes back is what went in.


def test_a_checkpoint_comes_back_whole(tmp_path, warnings):
    path = checkpoints.write(tmp_path / "checkpoints", made(7))
    assert path == tmp_path / "checkpoints" / "00000007"
    assert names(path) == sorted(FILES)
    assert_same(checkpoints.read(path), made(7))
    assert_same(checkpoints.newest(tmp_path / "checkpoints"), made(7))
    manifest = json.loads((path / "manifest.json").read_text())
    assert [manifest[name] for name in ("step", "kimg", "processes")] == [7, 0.07, 2]
    for name in FILES[:-1]:
        content = (path / name).read_bytes()
        assert manifest["files"][name] == {"sha256": hashlib.sha256(content).hexdigest(), "size": len(content)}
    assert warnings() == []


@pytest.mark.parametrize("dtype", list(tensorfile.DTYPES), ids=str)
def test_every_type_of_number_keeps_its_bits(tmp_path, dtype):
    width = torch.empty((), dtype=dtype).element_size()
    bits = torch.arange(24 * width, dtype=torch.uint8) % (2 if dtype == torch.bool else 100)
    values = bits.view(dtype).reshape(4, 6)
    tensors = {"a": values, "b": values[0, 0].clone(), "c": torch.empty(0, 3, dtype=dtype), "d": torch.ones(1).bool()}
    digest = tensorfile.write(tmp_path / "x.safetensors", tensors)
    content = (tmp_path / "x.safetensors").read_bytes()
    assert (digest, tensorfile.size(tensors)) == (hashlib.sha256(content).hexdigest(), len(content))
    found = load_file(tmp_path / "x.safetensors")
    assert {name: (t.dtype, t.shape, raw(t)) for name, t in found.items()} == {
        name: (t.dtype, t.shape, raw(t)) for name, t in tensors.items()
    }


def test_the_bytes_are_those_of_safetensors_itself(tmp_path):
    tensors = {"b": torch.randn(3, 5), "a": torch.randn(7), "c": torch.arange(4), "d": torch.tensor([True])}
    save_file(tensors, tmp_path / "theirs")
    tensorfile.write(tmp_path / "ours", tensors)
    assert (tmp_path / "ours").read_bytes() == (tmp_path / "theirs").read_bytes()


def test_memory_layouts_and_shared_storages_come_back_as_values(tmp_path):
    storage = torch.randn(6, 4, 5, 5)
    model = {
        "channels_last": storage.to(memory_format=torch.channels_last),
        "tied.a": storage,
        "tied.b": storage,
        "transposed": storage.transpose(0, 1),
        "sliced": storage[1:4, ::2],
        "expanded": torch.randn(1, 5).expand(3, 5),
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "conjugated": torch.randn(4, dtype=torch.complex64).conj(),
        "negative": torch.randn(4, dtype=torch.complex64).conj().imag,
    }
    checkpoint = made(1, model=model)
    saver = Saver(tmp_path / "saved", keep=1)
    saver.save(checkpoint)
    saver.wait()
    checkpoints.write(tmp_path / "written", checkpoint)
    for place in ("saved", "written"):
        found = checkpoints.newest(tmp_path / place)
        assert {key: raw(tensor) for key, tensor in found.model.items()} == {
            key: raw(tensor.resolve_conj().resolve_neg()) for key, tensor in model.items()
        }


def test_a_large_tensor_is_written_in_pieces(tmp_path):
    tensor = torch.arange(tensorfile.PIECE // 4 + 3, dtype=torch.int32)
    digest = tensorfile.write(tmp_path / "x", {"a": tensor})
    assert digest == hashlib.sha256((tmp_path / "x").read_bytes()).hexdigest()
    assert torch.equal(load_file(tmp_path / "x")["a"], tensor)


@pytest.mark.parametrize("tensor", [torch.eye(3).to_sparse(), torch.zeros(2, dtype=torch.complex128)], ids=str)
def test_a_tensor_that_the_format_cannot_hold_is_named(tmp_path, tensor):
    with pytest.raises(TypeError, match=r"generator\.odd is a"):
        tensorfile.header({"generator.odd": tensor})


# Never a value that is not finite.


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize(
    "dtype", [torch.float32, torch.float64, torch.float16, torch.bfloat16, torch.complex64], ids=str
)
def test_the_first_tensor_that_is_not_finite_is_named(value, dtype):
    tensors = {"int": torch.tensor(3), "empty": torch.empty(0), "large": torch.full((9,), 3e4, dtype=dtype)}
    assert checkpoints.non_finite(tensors) is None
    broken = torch.zeros(3, 3, dtype=dtype).t()
    broken[2, 1] = value
    assert checkpoints.non_finite({**tensors, "z": broken, "a": broken}) == "z"


def test_large_numbers_are_finite():
    assert checkpoints.non_finite({"a": torch.full((5,), torch.finfo(torch.float64).max, dtype=torch.float64)}) is None
    assert checkpoints.non_finite({"a": torch.full((5,), 3.4e38), "b": torch.full((2, 2), -3.4e38)}) is None
    assert checkpoints.non_finite({"a": torch.tensor([1.0, float("nan")]).to(torch.float8_e5m2)}) == "a"


@pytest.mark.parametrize("part", ["model", "optimizer", "ranks"])
def test_a_checkpoint_of_broken_values_is_never_written(tmp_path, part):
    checkpoints.write(tmp_path, made(1))
    broken = {"1/buffer/odd.weight": torch.tensor([1.0, float("nan")])}
    with pytest.raises(RunError, match=r"step 2 is not written: 1/buffer/odd\.weight holds values that are not finite"):
        checkpoints.write(tmp_path, made(2, **{part: broken}))
    assert names(tmp_path) == ["00000001"]
    with pytest.raises(RunError, match="step 2 is not written"):
        checkpoints.write(tmp_path, made(2, state={"loss": float("inf")}))
    assert names(tmp_path) == ["00000001"]


# Names, order, pruning and what a crash leaves.


def test_steps_are_ordered_by_number_and_not_by_time(tmp_path):
    for step in (100_000_000, 99_999_999, 3, 20):
        checkpoints.write(tmp_path, made(step))
    for name in ("notes", "5", "0000٣٣٣٣", "00000007.bak", ".hidden"):
        (tmp_path / name).mkdir()
    now = (tmp_path / "00000003").stat().st_mtime
    os.utime(tmp_path / "00000003", (now + 1e6, now + 1e6))
    assert [path.name for path in checkpoints.steps(tmp_path)] == ["00000003", "00000020", "99999999", "100000000"]
    assert checkpoints.newest(tmp_path).step == 100_000_000
    assert checkpoints.steps(tmp_path / "absent") == []
    assert checkpoints.newest(tmp_path / "absent") is None


def test_the_newest_are_kept_and_leftovers_go(tmp_path):
    for step in range(1, 6):
        checkpoints.write(tmp_path, made(step))
    for name in (".draft-00000009", ".old-00000000"):
        shutil.copytree(tmp_path / "00000001", tmp_path / name)
    (tmp_path / "notes.txt").write_text("mine")
    checkpoints.prune(tmp_path, keep=2)
    assert names(tmp_path) == ["00000004", "00000005", "notes.txt"]
    checkpoints.prune(tmp_path, keep=7)
    assert names(tmp_path) == ["00000004", "00000005", "notes.txt"]


def test_later_steps_can_be_dropped(tmp_path):
    for step in (1, 2, 3):
        checkpoints.write(tmp_path, made(step))
    (tmp_path / "00000004").write_text("a file in the place of a folder")
    (tmp_path / "00000005").symlink_to(tmp_path / "00000001")
    checkpoints.drop_after(tmp_path, 1)
    assert names(tmp_path) == ["00000001"]
    assert checkpoints.newest(tmp_path).step == 1


def test_a_half_written_one_is_no_checkpoint(tmp_path, warnings):
    checkpoints.write(tmp_path, made(1))
    draft = tmp_path / ".draft-00000002"
    shutil.copytree(tmp_path / "00000001", draft)
    (draft / "manifest.json").unlink()
    assert checkpoints.newest(tmp_path).step == 1
    assert warnings() == []
    checkpoints.write(tmp_path, made(2))
    assert names(tmp_path) == ["00000001", "00000002"]
    assert_same(checkpoints.newest(tmp_path), made(2))


def test_a_step_that_is_saved_again_is_there_at_every_instant(tmp_path, warnings):
    checkpoints.write(tmp_path, made(3))
    again = made(3, state={"kimg": 5})
    checkpoints.write(tmp_path, again)
    assert names(tmp_path) == ["00000003"]
    assert_same(checkpoints.newest(tmp_path), again)
    (tmp_path / "00000003").rename(tmp_path / ".replaced-00000003")      # killed between the two renames
    checkpoints.prune(tmp_path, keep=1)
    assert_same(checkpoints.newest(tmp_path), again)
    checkpoints.write(tmp_path, made(3))
    assert names(tmp_path) == ["00000003"]
    shutil.copytree(tmp_path / "00000003", tmp_path / ".replaced-00000003")      # killed just after
    (tmp_path / ".replaced-00000003" / "state.json").unlink()
    assert_same(checkpoints.newest(tmp_path), made(3))
    checkpoints.drop_after(tmp_path, 2)
    assert names(tmp_path) == []
    assert warnings() == []


def test_a_draft_that_cannot_be_published_leaves_what_was_there(tmp_path):
    checkpoints.write(tmp_path, made(3))
    with pytest.raises(FileNotFoundError):
        publish(tmp_path / ".draft-00000003", 3)
    assert checkpoints.newest(tmp_path).step == 3


# Where checkpoints cannot be written or read.


@pytest.mark.parametrize(
    "call", [checkpoints.prepare, lambda path: checkpoints.write(path, made(1)), checkpoints.newest]
)
def test_a_file_in_the_place_of_the_directory_is_told(tmp_path, call):
    (tmp_path / "file").write_text("mine")
    for path in (tmp_path / "file", tmp_path / "file" / "checkpoints"):
        with pytest.raises(RunError) as caught:
            call(path)
        assert str(path) in str(caught.value)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.fixture
def place():
    """Return a folder that every user of the machine can reach."""
    with tempfile.TemporaryDirectory() as name:
        Path(name).chmod(0o755)
        yield Path(name) / "checkpoints"


def test_a_directory_that_may_not_be_written_to_is_told(place):
    checkpoints.write(place, made(1))
    place.chmod(0o555)
    told = as_anybody(lambda: Saver(place, keep=2), lambda: checkpoints.write(place, made(2)))
    assert [line.split(" (")[0] for line in told] == [
        f"RunError: Checkpoints cannot be written to {place}",
        f"RunError: The checkpoint of step 2 cannot be written to {place}",
    ]
    (told,) = as_anybody(lambda: checkpoints.drop_after(place, 0))
    assert told.startswith(f"RunError: Checkpoint {place / '00000001'} cannot be removed (Permission denied)")
    assert names(place) == ["00000001"]


def test_a_directory_that_may_not_be_read_is_no_empty_one(place):
    checkpoints.write(place, made(1))
    place.chmod(0o300)
    (told,) = as_anybody(lambda: checkpoints.newest(place))
    assert told.startswith(f"RunError: {place} cannot be read as a folder of checkpoints (Permission denied)")


def test_a_checkpoint_that_may_not_be_read_is_passed_over(place):
    for step in (1, 2, 3):
        checkpoints.write(place, made(step))
    (place / "00000003" / "ranks.safetensors").chmod(0)
    (place / "00000002").chmod(0)
    assert as_anybody(lambda: checkpoints.newest(place).step) == [
        "Checkpoint 00000003 is damaged (ranks.safetensors: Permission denied). Trying the one before.",
        "Checkpoint 00000002 is damaged (manifest.json: Permission denied). Trying the one before.",
        "1",
    ]


@pytest.mark.skipif(os.getuid() != 0, reason="only root can make files that are another user's")
def test_older_ones_that_cannot_be_removed_are_no_failure(place):
    checkpoints.write(place, made(1))
    place.chmod(0o1777)      # as in /tmp: others may add, but not rename what is root's

    def save() -> int:
        saver = Saver(place, keep=1)
        saver.save(made(2))
        saver.wait()
        return checkpoints.newest(place).step

    told, step = as_anybody(save)
    assert told.startswith(f"Checkpoint {place / '00000001'} cannot be removed (Operation not permitted):")
    assert step == "2"
    assert names(place) == ["00000001", "00000002"]


def as_anybody(*calls) -> list[str]:
    """Call in a process of a user whom permissions bind; return the warnings, and what each call returned or raised."""
    reading, writing = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            if os.getuid() == 0:
                os.setuid(65534)
            out = os.fdopen(writing, "w")
            logging.getLogger("zoo").addHandler(logging.StreamHandler(out))
            for call in calls:
                try:
                    print(call(), file=out)
                except RunError as error:
                    print(f"RunError: {error}", file=out)
            out.flush()
        finally:
            os._exit(0)
    os.close(writing)
    with os.fdopen(reading) as said:
        lines = said.read().splitlines()
    os.waitpid(child, 0)
    return lines


def test_too_little_room_is_told_before_anything_is_written(tmp_path, warnings):
    checkpoints.write(tmp_path, made(1))
    huge = {"generator.count": torch.zeros(1, dtype=torch.int64).expand(10**13)}      # says 80 TB, takes 8 bytes
    told = r"step 2 finds no room: .* MiB free, [\d.]+ MiB more are needed; older"
    with pytest.raises(RunError, match=told) as caught:
        checkpoints.write(tmp_path, made(2, model=huge))
    missing = float(str(caught.value).split(" MiB more")[0].split()[-1])
    assert missing == pytest.approx((8e13 - shutil.disk_usage(tmp_path).free) / 2**20, rel=0.01)
    assert names(tmp_path) == ["00000001"]
    assert warnings() == []


# The thread that writes.


def test_the_training_may_change_its_tensors_while_they_are_written(tmp_path):
    live = {"generator.weight": torch.zeros(1 << 20), "generator.conv": torch.zeros(8, 8, 3, 3)}
    live["generator.conv"] = live["generator.conv"].to(memory_format=torch.channels_last)
    state: dict = {"faults": []}
    saver = Saver(tmp_path / "checkpoints", keep=10)
    for step in range(1, 8):
        saver.save(made(step, model=dict(live), state=state))
        for tensor in live.values():
            tensor.add_(1)
        state["faults"].append(step)
    saver.wait()
    saver.wait()
    found = [checkpoints.read(path) for path in checkpoints.steps(tmp_path / "checkpoints")]
    assert [each.step for each in found] == list(range(1, 8))
    for each in found:
        assert {float(tensor.min()) for tensor in each.model.values()} == {each.step - 1.0}
        assert {float(tensor.max()) for tensor in each.model.values()} == {each.step - 1.0}
        assert each.state == {"faults": list(range(1, each.step))}


def test_a_saver_keeps_so_many_and_clears_up_after_a_crash(tmp_path):
    directory = tmp_path / "run" / "checkpoints"
    directory.mkdir(parents=True)
    (directory / ".draft-00000001").mkdir()
    saver = Saver(directory, keep=2)
    assert names(directory) == []
    saver.wait()      # nothing was saved yet
    for step in (1, 2, 3):
        saver.save(made(step))
        saver.wait()
        assert names(directory) == [f"{each:08d}" for each in range(max(1, step - 1), step + 1)]


def test_a_save_that_fails_midway_costs_a_warning_and_the_next_one_works(tmp_path, warnings):
    import resource

    large = {"generator.weight": torch.randn(1 << 18)}
    saver = Saver(tmp_path, keep=1)
    saver.save(made(1, model=large))
    saver.wait()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 19, hard))      # a file ends at half of what is needed
    try:
        saver.save(made(2, model=large))
        told = r"step 2 cannot be written .*File too large.*older checkpoints stay"
        with pytest.raises(RunError, match=told) as first:
            saver.wait()
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert warnings() == [str(first.value)]
    assert names(tmp_path) == ["00000001"]
    saver.save(made(3, model=large))
    saver.wait()
    assert names(tmp_path) == ["00000003"]
    assert len(warnings()) == 1


def test_a_failure_before_the_last_save_is_no_failure_of_the_run(tmp_path, warnings):
    saver = Saver(tmp_path, keep=2)
    saver.save(made(1, model={"odd.weight": torch.tensor(float("nan"))}))
    saver.save(made(2))
    saver.wait()
    assert names(tmp_path) == ["00000002"]
    assert [line[:34] for line in warnings()] == ["The checkpoint of step 1 is not wr"]


def test_a_fault_of_the_code_is_not_hidden_by_the_thread(tmp_path):
    saver = Saver(tmp_path, keep=2)
    saver.save(made(1, model={"odd": torch.zeros(2, dtype=torch.complex128)}))
    with pytest.raises(TypeError, match="odd is a"):
        saver.wait()
    assert names(tmp_path) == []


# Damage: passed over with one line, never executed, never waited for.


def forged(path: Path, **changes: bytes) -> None:
    """Change files and have the manifest, signed anew, say what is there now."""
    for name, content in changes.items():
        (path / name).write_bytes(content)
    manifest = Manifest.read(path)
    digests = {name: hashlib.sha256((path / name).read_bytes()).hexdigest() for name in FILES[:-1]}
    (path / "manifest.json").write_bytes(Manifest.of(path, manifest.step, digests, manifest.about).text())


class Payload:
    def __reduce__(self):
        return (os.mkdir, (CANARY,))


def cut(path: Path) -> None:
    (path / "model.safetensors").write_bytes((path / "model.safetensors").read_bytes()[:-1])


def flip(path: Path) -> None:
    content = bytearray((path / "optimizer.safetensors").read_bytes())
    content[-3] ^= 16
    (path / "optimizer.safetensors").write_bytes(content)


def lie_about_the_step(path: Path) -> None:
    manifest = Manifest.read(path)
    digests = {name: file.sha256 for name, file in manifest.files.items()}
    (path / "manifest.json").write_bytes(Manifest.of(path, 9, digests, manifest.about).text())


def lie_without_a_new_hash(path: Path) -> None:
    text = (path / "manifest.json").read_text()
    (path / "manifest.json").write_text(text.replace('"processes": 2', '"processes": 3'))


def in_the_place_of(name: str, put) -> object:
    def change(path: Path) -> None:
        (path / name).unlink()
        put(path / name)

    change.__name__ = f"{getattr(put, '__name__', 'put')}-{name}"
    return change


def pipe(path: Path) -> None:
    os.mkfifo(path)


def link(path: Path) -> None:
    path.symlink_to(path.parent.parent / "00000001" / path.name)


def folder(path: Path) -> None:
    path.mkdir()


def text(content: bytes):
    def put(path: Path) -> None:
        path.write_bytes(content)

    put.__name__ = content[:20].decode(errors="replace")
    return put


def consistent(name: str, content: bytes):
    def change(path: Path) -> None:
        forged(path, **{name: content})

    change.__name__ = f"consistent-{name}-{content[:20]!r}"
    return change


def a_file(path: Path) -> None:
    shutil.rmtree(path)
    path.write_text("a file")


def a_link(path: Path) -> None:
    path.rename(path.with_name("elsewhere"))
    path.symlink_to(path.with_name("elsewhere"))


def a_pipe(path: Path) -> None:
    shutil.rmtree(path)
    os.mkfifo(path)


def nothing_inside(path: Path) -> None:
    shutil.rmtree(path)
    path.mkdir()


HOSTILE = pickle.dumps(Payload())
DAMAGES = [
    cut, flip, lie_about_the_step, lie_without_a_new_hash, a_file, a_link, a_pipe, nothing_inside,
    *(in_the_place_of(name, put) for name in FILES for put in (lambda path: None, pipe, link, folder)),
    *(
        in_the_place_of("manifest.json", text(content))
        for content in (
            b"", b"[]", b"null", b"{}", b"7", b'{"step": 2}', b'{"step": 2} x', b"[" * 100_000, b"\xff\xfe",
            b'{"sha256": 1, "step": 2, "files": {}}', b'{"step": ' + b"9" * 5000 + b"}", b" " * 300_000, HOSTILE,
            b'{"sha256": {}}', b'{"a": NaN, "sha256": ""}',
        )
    ),
    *(
        consistent("state.json", content)
        for content in (
            b"", b"[]", b"null", b'{"kimg": 1} x', b"[" * 100_000, b"\xff", b'{"a": ' + b"9" * 5000 + b"}", HOSTILE,
        )
    ),
    *(
        consistent(name, content)
        for name in FILES[:3]
        for content in (b"", HOSTILE, b"\xff" * 64, (10**6).to_bytes(8, "little") + b"{}")
    ),
]  # fmt: skip


@pytest.mark.parametrize("damage", DAMAGES, ids=lambda change: change.__name__[:40].encode("unicode_escape").decode())
def test_a_damaged_one_is_passed_over_with_one_line(tmp_path, warnings, damage):
    for step in (1, 2):
        checkpoints.write(tmp_path, made(step))
    damage(tmp_path / "00000002")
    found = checkpoints.newest(tmp_path)
    assert_same(found, made(1))
    assert len(warnings()) == 1
    assert warnings()[0].startswith("Checkpoint 00000002 is damaged (")
    assert warnings()[0].endswith("). Trying the one before.")
    assert "\n" not in warnings()[0]
    assert not os.path.exists(CANARY)
    with pytest.raises(RunError, match="Checkpoint 00000002 is damaged"):
        checkpoints.read(tmp_path / "00000002")


def test_where_none_is_whole_there_is_none_and_all_are_named(tmp_path, warnings):
    for step in (1, 2, 3):
        checkpoints.write(tmp_path, made(step))
        flip(tmp_path / f"{step:08d}")
    assert checkpoints.newest(tmp_path) is None
    assert [line.split()[1] for line in warnings()] == ["00000003", "00000002", "00000001"]
    assert len(checkpoints.steps(tmp_path)) == 3


def test_a_folder_of_another_name_is_refused(tmp_path):
    checkpoints.write(tmp_path, made(1)).rename(tmp_path / "best")
    with pytest.raises(RunError, match="named after its step"):
        checkpoints.read(tmp_path / "best")


# The same at length: python tests/faults/NAME.py.


def script(name: str, *options: str) -> str:
    """Run a script that makes faults and return the last line that it prints."""
    path = Path(__file__).parent / "faults" / f"{name}.py"
    done = subprocess.run([sys.executable, path, *options], capture_output=True, text=True, timeout=900, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout.splitlines()[-1]


@pytest.mark.parametrize("count", [10, pytest.param(200, marks=pytest.mark.slow)])
def test_killed_while_saving(count):
    assert script("kill_in_save", "--count", str(count)).startswith(f"{count}/{count} ")


@pytest.mark.parametrize("count", [10, pytest.param(200, marks=pytest.mark.slow)])
def test_damaged_anywhere(count):
    each = 1 + count // 10 + count
    assert script("damaged_checkpoints", "--count", str(count)).startswith(f"{5 * each}/{5 * each} ")


@pytest.mark.parametrize("trainings", [0, pytest.param(10, marks=pytest.mark.slow)])
def test_a_full_disk(trainings):
    said = script("disk_full", "--count", str(trainings))
    if said.startswith("skipped"):
        pytest.skip(said)
    count = 7 + (trainings and 1 + trainings)
    assert said.startswith(f"{count}/{count} ")
