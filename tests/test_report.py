"""`zoo report`: one page about a run in whatever state, that holds what the run says and nothing that runs or loads."""

from __future__ import annotations

import base64
import io
import json
import math
import re
import shlex
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

import zoo
from zoo.cli import main
from zoo.cli.options import seed_everything
from zoo.errors import ConfigError, RunError, WeightsError
from zoo.storage import digest

DATA = "emoji:smileys-emotion"
TINY = {"resolution": 16, "latent": 8, "generator_width": 4, "discriminator_width": 4}
SECTIONS = ["summary", "findings", "evaluation", "curves", "pictures", "settings"]
TITLES = ("Samples", "Truncation", "Interpolation", "Real and fake", "Nearest neighbours")
BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
HOSTILE = "</title></script><script>alert(1)</script><img src=x onerror=alert(1)>'\"&{{1357*2468}}\ud800"


class Page(HTMLParser):
    """What a page holds: its elements with their attributes, its text, and the series of its charts."""

    def __init__(self, path: Path):
        super().__init__(convert_charrefs=True)
        self.source = path.read_text(encoding="utf-8")
        self.elements: list[tuple[str, dict[str, str]]] = []
        self.words: list[str] = []
        self.charts: dict[str, dict[str, dict[float, float]]] = {}
        self._inside: list[str] = []
        self._title = ""
        self.feed(self.source)
        self.close()
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        given = {name: value or "" for name, value in attrs}
        self.elements.append((tag, given))
        if tag not in ("img", "meta", "link"):      # which have no end
            self._inside.append(tag)
        if given.get("class", "").startswith("line "):
            places, values = (list(map(float, given[name].split())) for name in ("data-kimg", "data-values"))
            assert len(places) == len(values)
            self._series = dict(zip(places, values))

    def handle_endtag(self, tag):
        while self._inside and self._inside.pop() != tag:
            pass

    def handle_data(self, data):
        if self._inside[-1:] in (["script"], ["style"]):
            return
        self.words.append(data)
        if self._inside[-1:] == ["h3"] and data.strip():
            self._title = data.strip()
        if self._inside[-2:] == ["path", "title"]:
            self.charts.setdefault(self._title, {})[data] = self._series

    def all(self, tag: str) -> list[dict[str, str]]:
        return [given for name, given in self.elements if name == tag]

    def classed(self, name: str) -> list[dict[str, str]]:
        return [given for _, given in self.elements if name in given.get("class", "").split()]


def pictures(page: Page) -> list[Image.Image]:
    found = []
    for given in page.all("img"):
        kind, _, content = given["src"].partition(";base64,")
        assert kind in ("data:image/png", "data:image/jpeg")
        image = Image.open(io.BytesIO(base64.b64decode(content, validate=True)))
        image.load()
        assert (image.width, image.height) == (int(given["width"]), int(given["height"]))
        found.append(image)
    return found


def written(folder: Path, settings: object, lines: list[dict[str, Any]]) -> Path:
    """Make a run directory of these settings and log lines, and nothing else."""
    folder.mkdir()
    (folder / "run.json").write_text(json.dumps(settings))
    (folder / "log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return folder


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Path:
    """A finished run with an evaluation."""
    out = tmp_path_factory.mktemp("runs") / "tiny"
    seed_everything(3)      # as the command line draws weights
    zoo.train(zoo.create("dcgan", **TINY), DATA, kimg=0.064, batch=16, out=out, seed=3, tick_kimg=0.016,
              settings={"lr": 0.001, "augment": ("color",)}, add=["lecam:weight=0.1"])  # fmt: skip
    zoo.evaluate(out, DATA, metrics=("kid", "precision_recall"), samples=64, reference=64, features="pixels")
    return out


@pytest.fixture
def run(made, tmp_path) -> Path:
    return shutil.copytree(made, tmp_path / "run")


@pytest.fixture(scope="module")
def page(made) -> Page:
    return Page(zoo.report(made, DATA, samples=9))


def test_every_section_is_there_in_its_order(page):
    assert [given["id"] for tag, given in page.elements if given.get("id") in SECTIONS] == SECTIONS
    linked = {given["href"] for given in page.all("a")}
    assert linked == {f"#{name}" for name in SECTIONS[1:]}
    for told in (f"dcgan on {DATA}: 0.064 of 0.064 kimg, finished", "169 images", "random weights", "16x16 RGB"):
        assert told in page.text


def test_nothing_is_fetched_and_nothing_foreign_may_run(page):
    for _, given in page.elements:
        for name in ("src", "href", "srcset", "data", "action", "poster", "xlink:href"):
            assert given.get(name, "#").startswith(("#", "data:"))
        assert not any(name.startswith("on") or name == "style" for name in given)
    assert not re.search(r"url\(|@import|https?://|\bimport\b|fetch\(", page.source)
    (policy,) = (given["content"] for given in page.all("meta") if "http-equiv" in given)
    assert policy.startswith("default-src 'none'; img-src data:;")
    assert "unsafe" not in policy


def test_the_curves_are_those_of_the_log(page, made):
    lines = zoo.Run(made).log
    assert len(lines) == 4
    expected = {
        ("discriminator", "adversarial"): "discriminator.adversarial",
        ("generator", "adversarial"): "generator.adversarial",
        ("Gradient norms", "generator"): "generator.gradient_norm",
        ("discriminator", "lecam"): "discriminator.lecam",
        ("Logits", "discriminator.logits_real"): "discriminator.logits_real",
    }
    for (chart, name), term in expected.items():
        told = {line["kimg"]: line["terms"][term] for line in lines}
        assert page.charts[chart][name] == pytest.approx(told, rel=1e-5)
    assert page.charts["Learning rate"]["lr"] == {line["kimg"]: line["lr"] for line in lines}
    shown = sum(len(series) for series in page.charts.values())
    assert shown == len(lines[0]["terms"]) + 2      # the learning rate and the speed


def test_the_evaluation_is_told_with_its_errors_and_receipt(page, made):
    found = zoo.Evaluation.open(made)
    measured = {name: value for name, value in found.values.items() if not name.endswith("_std_error")}
    assert [float(given["title"]) for given in page.all("td") if "title" in given] == list(measured.values())
    assert set(measured) < set(page.words)
    value, error = re.search(r"kid\s+([\d.]+) ± ([\d.]+)", page.text).groups()
    assert float(value) == pytest.approx(found["kid"], abs=float(error))
    assert float(error) == pytest.approx(found["kid_std_error"], rel=0.06)
    receipt = found.receipt
    assert {receipt["reference_digest"], receipt["features"]["digest"], receipt["model"]["digest"]} < set(page.words)


def test_the_pictures_are_those_of_the_run(page, made):
    found = pictures(page)
    titles = [word for word in page.words if word in TITLES]
    assert titles == list(TITLES)
    grids = [Image.open(made / "samples" / f"{name}.png") for name in ("000000", "000000.064")]
    assert [image.tobytes() for image in found[:2]] == [image.convert("RGB").tobytes() for image in grids]
    assert len(found) == len(grids) + len(titles)
    assert found[2].width == found[2].height      # nine samples
    assert "The 8 of 9 samples that are nearest to an image" in page.text


def test_every_setting_is_told(page, made):
    def leaves(value: Any) -> list[Any]:
        inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else None
        return [value] if inner is None else [leaf for each in inner for leaf in leaves(each)]

    lists = [json.loads(text) for text in page.words if text.startswith("[")]
    told = set(page.words) | {each if isinstance(each, str) else json.dumps(each) for inner in lists for each in inner}
    for leaf in leaves(zoo.Run(made).settings):
        assert (leaf if isinstance(leaf, str) else json.dumps(leaf)) in told


def test_the_command_makes_the_run_again(page, made):
    (text,) = (word for word in page.words if word.startswith("zoo train"))
    words = shlex.split(text)
    out = Path(words[words.index("--out") + 1])
    assert out == made.with_name("tiny-again")
    assert "discriminator_norm" not in text      # as it would be anyway
    assert main(words[1:]) == 0
    first, again = zoo.Run(made), zoo.Run(out)
    assert {**again.settings, "schedule": None} == {**first.settings, "schedule": None}
    assert digest(again.model.state_dict()) == digest(first.model.state_dict())


def test_what_a_stranger_wrote_stays_text(tmp_path):
    settings = {
        "architecture": HOSTILE, "config": {HOSTILE: HOSTILE, "resolution": HOSTILE}, "kimg": 1, "method": HOSTILE,
        "method_reason": HOSTILE, "data": {"name": HOSTILE, "classes": [HOSTILE], "images": HOSTILE},
        "parent": {"name": HOSTILE, "commit": HOSTILE}, "recipe": {"added": [HOSTILE], "lr": HOSTILE},
        HOSTILE: [HOSTILE],
    }  # fmt: skip
    finding = {"step": 5, "action": "rolled back", "to": 1, "why": HOSTILE, "rate": 0.5, "watchdog": HOSTILE}
    terms = {f"{HOSTILE}.{HOSTILE}": 1.0}
    line = {"step": 9, "kimg": 0.5, "terms": terms, HOSTILE: {HOSTILE: 2.0}, "faults": [finding]}
    folder = written(tmp_path / "<b onclick=x>", settings, [line])
    (folder / "evaluation.json").write_text(json.dumps({"values": {HOSTILE: HOSTILE}, "receipt": HOSTILE}))
    page = Page(zoo.report(folder, out=tmp_path / "page.html"))
    assert (len(page.all("script")), len(page.all("style")), len(page.all("img"))) == (1, 1, 0)
    assert not any(name.startswith("on") for _, given in page.elements for name in given)
    assert page.text.count("<script>alert(1)</script>") > 8
    assert "3349076" not in page.text      # no template in a template
    assert page.all("h1") == [{}]
    assert "<b onclick=x>" in page.words


def test_what_is_missing_is_said_in_its_place(tmp_path):
    page = Page(zoo.report(written(tmp_path / "run", {}, [])))
    for told in ("The log has no value yet", "The watchdog has not looked", "There is no sample grid yet",
                 "There is no model yet, and no checkpoint", "has not been evaluated",
                 "No command line makes this run again"):  # fmt: skip
        assert told in page.text
    assert page.charts == {}


@pytest.mark.parametrize("broken", ["{", "[]", '{"values": {"fid": NaN}, "receipt": {}}', "{}"])
def test_an_evaluation_that_cannot_be_read_is_said_to_be_so(broken, run):
    (run / "evaluation.json").write_text(broken)
    page = Page(zoo.report(run))
    assert not page.classed("values")
    assert "evaluation.json" in page.text
    assert len(pictures(page)) == 5      # and all else is there


def test_damaged_pictures_cost_themselves_alone(run):
    last = run / "samples" / "000000.064.png"
    last.write_bytes(last.read_bytes()[:200])
    (run / "samples" / "notes.png").write_text("none of the training's")
    page = Page(zoo.report(run))
    assert len(pictures(page)) == 4
    assert f"{last.name} cannot be shown" in page.text
    assert "notes.png" not in page.text
    assert "0 kimg" in page.words


@pytest.mark.parametrize(
    "odd", [math.nan, math.inf, 10**400, -(10**400), None, [], {"a": [None]}, "x"], ids=lambda odd: f"{odd!s:.9}"
)
def test_numbers_that_are_none_leave_a_page(odd, tmp_path):
    names = ("kimg", "seed", "held_out", "config", "recipe", "data", "parent", "versions", "schedule", "method_options")
    settings = {"architecture": "dcgan", "data": {"name": "x"}, "method": "lora"}
    recipe = dict.fromkeys(("batch", "lr", "added", "phases", "betas"), odd)
    fault = {"action": "rolled back", "step": odd, "to": odd, "rate": odd, "why": odd, "watchdog": odd}
    lines = [{"step": 1, "kimg": 1.0, "terms": {"g.x": odd, "g.gradient_norm": odd}, "watchdog": {"apart": odd}},
             {"step": odd, "kimg": odd, "skipped": odd, "terms": {}},
             {"step": 2, "kimg": 2.0, "terms": {}, "watchdog": odd, "lr": odd, "seconds": odd, "faults": [fault]}]
    folder = written(tmp_path / "run", {**settings, **dict.fromkeys(names, odd)}, lines)      # fmt: skip
    assert Page(zoo.report(folder)).text
    folder = written(tmp_path / "another", {**settings, "kimg": 1, "recipe": recipe}, lines)
    assert "g.x" not in Page(zoo.report(folder)).text


def test_values_that_are_not_finite_break_a_line_and_nothing_else(tmp_path):
    odd = [1.0, None, math.nan, math.inf, -1e308, 1e308, 5e-324, 10**400, 2.0]
    lines = [{"step": i, "kimg": float(i), "terms": {"g.loss": value, "g.flat": 3.0, "g.text": "x"}, "lr": 1e-300 * i}
             for i, value in enumerate(odd, 1)]  # fmt: skip
    page = Page(zoo.report(written(tmp_path / "run", {}, lines)))
    finite = {1.0: 1.0, 5.0: -1e308, 6.0: 1e308, 7.0: 5e-324, 9.0: 2.0}
    assert page.charts["g"]["loss"] == pytest.approx(finite, rel=1e-5)
    assert page.charts["g"]["flat"] == dict.fromkeys(map(float, range(1, 10)), 3.0)
    assert set(page.charts["g"]) == {"loss", "flat"}
    assert "4 values were not finite" in page.text
    for given in page.classed("line"):
        numbers = re.findall(r"-?\d+(?:\.\d+)?", given["d"])
        assert all(0 <= float(each) <= 440 for each in numbers)
        assert not re.search(r"nan|inf|e", given["d"])
    (path,) = (given["d"] for given in page.classed("line") if given["data-values"].startswith("1 -1e"))
    assert (path.count("M"), path.count("L")) == (1, 2)      # three together
    assert len(page.all("circle")) == 2      # and two alone


def test_a_long_log_is_thinned_out_and_keeps_its_peaks(tmp_path):
    names = [f"phase{i % 5}.term{i}" for i in range(20)]
    lines = [{"step": i, "kimg": i / 10, "terms": {name: math.sin(i / 100) for name in names}} for i in range(1, 4001)]
    lines[1234]["terms"]["phase0.term0"] = 99.0
    lines[2345]["terms"]["phase0.term0"] = None
    path = zoo.report(written(tmp_path / "run", {}, lines))
    assert path.stat().st_size < 700_000
    series = Page(path).charts["phase0"]["term0"]
    assert 200 < len(series) < 501
    assert (series[123.5], max(series)) == (99.0, 400.0)
    assert "1 value was not finite" in Page(path).text


def test_values_without_end_are_cut_and_counted(tmp_path):
    lines = [{"step": i, "kimg": i, "terms": {f"p{n % 7}.t{n}": 1.0 for n in range(600)}} for i in range(1, 4)]
    settings = {"data": {f"{n}": "x" * 5000 for n in range(1500)}, "architecture": "a" * 100_000}
    path = zoo.report(written(tmp_path / "run", settings, lines))
    assert path.stat().st_size < 4_000_000
    page = Page(path)
    assert "440 more values are in log.jsonl" in page.text
    assert "500 more" in page.words
    assert "98,000 more letters" in page.text


def test_what_the_watchdog_found_is_told_and_marked(tmp_path):
    well, bad = {"spread": 0.9, "apart": 0.8}, {"spread": 0.9, "apart": 0.02}
    looks = [well, well, bad, bad, bad, bad, bad]
    lines = [{"step": 40 * i, "kimg": 2.56 * i, "terms": {"g.loss": 1.0 * i}, "watchdog": look}
             for i, look in enumerate(looks, 1)]  # fmt: skip
    settings = {"architecture": "dcgan", "kimg": 17.92, "recipe": {"batch": 64}}
    folder = written(tmp_path / "run", settings, lines)
    page, told = Page(zoo.report(folder)), zoo.explain(folder)
    (found,) = told.found
    assert found.evidence in page.text
    for step in found.next:
        assert step["option"] in page.words
        assert step["why"] in page.words
    assert len(page.classed("band")) == len(page.classed("chart")) == 2
    rectangle = page.all("rect")[0]
    assert float(rectangle["x"]) == pytest.approx(50 + 380 * found.since / 17.92, abs=0.1)
    assert float(rectangle["x"]) + float(rectangle["width"]) == pytest.approx(430, abs=0.2)
    assert "The watchdog found mode collapse" in page.text


def test_a_model_with_classes_shows_each_of_them(tmp_path):
    classes = [HOSTILE, "fish", "birds"]
    folder = written(tmp_path / "run", {"architecture": "dcgan", "data": {"classes": classes}}, [])
    zoo.save(zoo.create("dcgan", **TINY, num_classes=3), folder / "model")
    page = Page(zoo.report(folder, samples=4))
    assert "Classes" in page.words
    assert len(pictures(page)) == 4
    assert page.text.count("<script>") == 1      # among the settings


def test_a_run_that_is_being_trained_shows_its_newest_checkpoint(run):
    shutil.rmtree(run / "model")
    page = Page(zoo.report(run, samples=4))
    assert "Drawn from the newest checkpoint, of step 4" in page.text
    assert len(pictures(page)) == 5
    shutil.rmtree(run / "checkpoints")
    assert "There is no model yet, and no checkpoint" in Page(zoo.report(run)).text


def test_the_newest_checkpoint_is_what_the_model_is(run, made):
    shutil.rmtree(run / "model")
    (run / "report.html").unlink(missing_ok=True)
    first, second = (pictures(Page(zoo.report(each, samples=4, out=run / "page.html"))) for each in (made, run))
    assert first[-1].tobytes() == second[-1].tobytes()


@pytest.fixture(scope="module")
def delta(made, tmp_path_factory) -> Path:
    """A fine-tune with method lora that has kept its delta alone."""
    out = tmp_path_factory.mktemp("runs") / "lora"
    parent = zoo.load(f"dir:{made / 'model'}")
    zoo.finetune(parent, DATA, kimg=0.016, batch=8, method="lora", out=out)
    shutil.rmtree(out / "model")
    return out


def test_a_delta_needs_its_parent(delta, made, tmp_path):
    page = Page(zoo.report(delta, out=tmp_path / "page.html"))
    assert "give them as parent='dir:PATH'" in page.text
    page = Page(zoo.report(delta, out=tmp_path / "page.html", parent=f"dir:{made / 'model'}"))
    assert "Drawn from the final model, its delta on its parent" in page.text
    assert "lora" in page.words
    with pytest.raises(WeightsError):
        zoo.report(delta, out=tmp_path / "page.html", parent=f"dir:{tmp_path}")
    with pytest.raises(ConfigError, match="is whole"):
        zoo.report(made, out=tmp_path / "page.html", parent="dcgan")


def test_what_is_not_possible_is_one_line(made, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    cases = [
        ([tmp_path], "is no run directory"),
        ([made, "--out", tmp_path / "run.json"], "end it with .html"),
        ([made, "--out", tmp_path / "file" / "page.html"], "cannot be written"),
        ([made, "--out", "/proc/page.html"], "cannot be written"),
        ([made, "--samples", "0"], "samples"),
        ([made, tmp_path / "nowhere", "--out", tmp_path / "page.html"], "nowhere"),
        ([made, DATA, "--features", "none", "--out", tmp_path / "page.html"], "none"),
    ]
    for words, told in cases:
        assert main(["report", *map(str, words)]) == 2
        said = capsys.readouterr()
        assert (said.out, said.err.count("\n")) == ("", 1)
        assert told in said.err
    assert [path.name for path in tmp_path.iterdir()] == ["file"]


def test_a_page_is_written_whole_or_not_at_all(run, monkeypatch):
    path = zoo.report(run)
    before = path.read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(RunError, match="No space left on device"):
        zoo.report(run)
    assert path.read_bytes() == before
    assert [each.name for each in run.iterdir() if each.name.startswith(".report")] == []


def test_the_command_says_where_the_page_is(run, capsys):
    assert main(["report", str(run)]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == str(run / "report.html")


@pytest.mark.skipif(BROWSER is None, reason="no Chromium here")
def test_a_browser_shows_it_without_a_complaint(page, made, tmp_path):
    flags = ["--headless", "--no-sandbox", "--disable-gpu", "--enable-logging=stderr", f"--user-data-dir={tmp_path}",
             "--window-size=390,800", f"--screenshot={tmp_path / 'shot.png'}", "--dump-dom"]  # fmt: skip
    address = (made / "report.html").as_uri()
    done = subprocess.run([BROWSER, *flags, address], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0
    assert not [line for line in done.stderr.splitlines() if ":CONSOLE" in line]
    assert done.stdout.count("<svg") == len(page.all("svg"))
    shot = Image.open(tmp_path / "shot.png").convert("L")
    assert shot.width == 390
    assert len(set(shot.tobytes())) > 20      # something is drawn
