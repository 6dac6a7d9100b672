"""The third-party plugin of examples/, built and installed into a fresh environment as its users would."""

import json
import os
import shutil
import site
import subprocess
import sys
import venv
from pathlib import Path

import pytest

EXAMPLE = Path(__file__).parent.parent / "examples" / "zoo-rsgan"
TRAIN_AND_RELOAD = """
import json, sys, zoo

folder = sys.argv[1]
model = zoo.create("rsgan", resolution=16, width=4)
run = zoo.train(model, "emoji:symbols", kimg=0.032, batch=8, out=folder + "/run")
before = model.sample(4, seed=5)
reloaded = zoo.load("dir:" + str(zoo.save(model, folder + "/saved")))
from_run = run.model
print(json.dumps({
    "steps": run.log[-1]["step"],
    "terms": sorted(run.log[-1]["terms"]),
    "architecture": reloaded.architecture,
    "equal": bool(reloaded.sample(4, seed=5).equal(before) and from_run.sample(4, seed=5).equal(before)),
    "averaged": sorted(reloaded.averages),
}))
"""


@pytest.fixture(scope="module")
def python(tmp_path_factory) -> Path:
    """The interpreter of a fresh environment that sees this one's packages and has the example installed."""
    home = tmp_path_factory.mktemp("fresh") / "env"
    venv.create(home, with_pip=False, symlinks=os.name != "nt")
    interpreter = home / ("Scripts/python.exe" if os.name == "nt" else "bin/python")
    where = [interpreter, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))"]
    packages = Path(subprocess.run(where, capture_output=True, text=True, check=True).stdout.strip())
    borrowed = "".join(f"import site; site.addsitedir({path!r})\n" for path in site.getsitepackages())
    (packages / "borrowed.pth").write_text(borrowed)
    copy = home / "source"
    shutil.copytree(EXAMPLE, copy)
    uv = os.environ.get("UV") or shutil.which("uv")
    tool = [uv, "pip", "install", "--python", interpreter, "--offline"] if uv else [interpreter, "-m", "pip", "install"]
    done = subprocess.run([*tool, "--no-deps", "--no-build-isolation", copy], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    shutil.rmtree(copy)                           # what was installed must stand alone
    return interpreter


def output(python: Path, *arguments: str) -> str:
    done = subprocess.run([python, *arguments], capture_output=True, text=True, cwd=python.parent)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_it_is_listed_beside_the_built_in(python):
    rows = json.loads(output(python, "-m", "zoo", "list", "--json"))
    assert {"rsgan", "stylegan.emoji32"} <= {row["name"] for row in rows}
    records = json.loads(output(python, "-m", "zoo", "plugins", "list", "--json"))
    mine = next(record for record in records if record["name"] == "rsgan")
    assert (mine["distribution"], mine["version"], mine["status"]) == ("zoo-rsgan", "1.0.0", "ok")


def test_it_is_absent_here():
    done = subprocess.run([sys.executable, "-m", "zoo", "info", "rsgan"], capture_output=True, text=True)
    assert done.returncode == 2
    assert "'rsgan'" in done.stderr


def test_it_trains_saves_and_reloads_with_equal_samples(python, tmp_path):
    found = json.loads(output(python, "-c", TRAIN_AND_RELOAD, str(tmp_path)).splitlines()[-1])
    assert found["equal"]
    assert (found["steps"], found["architecture"], found["averaged"]) == (4, "rsgan", ["generator"])
    assert {"discriminator.relativistic", "generator.relativistic", "r1.r1"} <= set(found["terms"])


def test_it_is_short():
    files = [EXAMPLE / "zoo_rsgan" / name for name in ("__init__.py", "model.py")]
    lines = [line.strip() for file in files for line in file.read_text().splitlines()]
    assert len([line for line in lines if line and not line.startswith(("#", '"""'))]) < 60
