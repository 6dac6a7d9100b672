"""Receipts: that they hold all it takes, that unlike ones are not compared, that what they say can be done again."""

import json
import math
import shlex

import pytest
import torch
from PIL import Image

import zoo
from zoo.cli import main
from zoo.errors import EvaluationError
from zoo.evaluation import Evaluation
from zoo.repetition import repeat

# No setting is the default, so that one which is not taken from the receipt is noticed.
ASKED = ["--features", "pixels", "--metrics", "kid,fid", "--samples", "40", "--seed", "3", "--psi", "0.8",
         "--reference", "20", "--batch", "7", "--force", "--errors", "4"]  # fmt: skip


@pytest.fixture(autouse=True)
def home(tmp_path_factory, monkeypatch):
    monkeypatch.setenv("ZOO_HOME", str(tmp_path_factory.mktemp("zoo-home")))


def pictures(folder, seed=1, count=24):
    chance = torch.Generator().manual_seed(seed)
    folder.mkdir()
    for i in range(count):
        pixels = torch.randint(0, 256, (16, 16, 3), dtype=torch.uint8, generator=chance)
        Image.fromarray(pixels.numpy()).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def place(tiny, tmp_path, monkeypatch):
    """The working directory: it holds a folder `model`, the folder `data`, and `evaluation.json` of both."""
    monkeypatch.chdir(tmp_path)
    zoo.save(tiny("dcgan"), tmp_path / "model")
    pictures(tmp_path / "data")
    evaluated("evaluation.json")
    return tmp_path


def evaluated(path, *options, name="dir:model", data="data"):
    """Write the evaluation.json that the command gives; a later option replaces an earlier one."""
    from contextlib import redirect_stdout
    from io import StringIO

    out = StringIO()
    with redirect_stdout(out):
        assert main(["evaluate", name, data, *ASKED, *options, "--json"]) == 0
    with open(path, "w") as file:
        file.write(out.getvalue())


def altered(path, source="evaluation.json", **changes):
    """Write a copy of a receipt in which entries, named with dots as `data__name`, say something else."""
    with open(source) as file:
        found = json.load(file)
    for name, value in changes.items():
        *above, last = name.split("__")
        entry = found
        for part in above:
            entry = entry[part]
        entry[last] = value
    with open(path, "w") as file:
        json.dump(found, file)
    return found


def refused(capsys, *arguments):
    """Run a command that must end with 2 and one line, and return that line."""
    capsys.readouterr()
    assert main(list(arguments)) == 2
    seen = capsys.readouterr()
    assert seen.out == ""
    assert seen.err.count("\n") == 1
    assert "Traceback" not in seen.err
    return seen.err


def told(capsys, *arguments, code=0):
    capsys.readouterr()
    assert main(list(arguments)) == code
    return capsys.readouterr().out


# What a receipt holds.


def test_a_receipt_holds_all_that_was_asked(place):
    found = Evaluation.open("evaluation.json")
    receipt = found.receipt
    assert receipt["command"] == shlex.join(["zoo", "evaluate", "dir:model", "data", *ASKED, "--json"])
    assert receipt["given"] == {"model": "dir:model", "data": "data", "features": "pixels", "batch": 7, "force": True,
                                "budget": None}  # fmt: skip
    assert (receipt["schema_version"], receipt["metrics"], receipt["forced"]) == (1, ["kid", "fid"], ["fid"])
    asked = ("seed", "psi", "reference", "real_images", "fake_images")
    assert [receipt[name] for name in asked] == [3, 0.8, 20, 20, 40]
    assert found.values["kid_std_error"] > 0
    assert {"zoo", "torch", "python"} <= set(receipt["versions"])


def test_objects_and_paths_are_named_as_far_as_they_can_be_found_again(place, tiny):
    small = {"metrics": "kid", "samples": 8, "features": "pixels"}
    images = zoo.data.open_images("data", resolution=16, channels=3)
    given = zoo.evaluate(tiny("dcgan"), images, **small).receipt["given"]
    assert (given["model"], given["data"]) == (None, None)
    paths = zoo.evaluate(place / "model", (place / "data").relative_to(place), **small).receipt
    assert (paths["given"]["model"], paths["given"]["data"]) == (f"dir:{place / 'model'}", "./data")
    assert paths["command"] is None


def test_the_reference_digest_is_of_the_images_alone(place, tiny):
    def digest(data="data", **options):
        asked = {"metrics": "kid", "samples": 8, "features": "pixels", "reference": 20} | options
        return zoo.evaluate(tiny("dcgan"), data, **asked).receipt["reference_digest"]

    first = digest()
    assert digest(batch=3, psi=0.5, samples=9) == first
    assert digest(seed=1) != first                                  # another choice of 20
    assert digest(seed=1, reference=None) == digest(reference=None) != first
    pictures(place / "others", seed=2)
    assert digest("others") != first


# Side by side.


def test_two_receipts_side_by_side(place, capsys):
    evaluated("other.json", "--seed", "4", "--reference", "24", "--errors", "0")
    evaluated("one.json", "--reference", "24", "--errors", "0")
    one, other = Evaluation.open("one.json"), Evaluation.open("other.json")
    printed = told(capsys, "compare", "one.json", "other.json")
    rows = {line.split()[0]: line.split() for line in printed.splitlines()}
    difference = other["kid"] - one["kid"]
    beyond = abs(difference) > 2 * math.hypot(one["kid_std_error"], other["kid_std_error"])
    expected = ["kid", f"{one['kid']:.6g}", f"{other['kid']:.6g}", f"{difference:+.3g}", "yes" if beyond else "no"]
    assert rows["kid"] == expected
    assert len(rows["fid"]) == 4                                    # no standard error, so no verdict
    assert "kid_std_error" not in rows
    assert "seed: 3 and 4" in printed

    document = json.loads(told(capsys, "compare", "one.json", "other.json", "--json"))
    assert document["values"]["kid"]["difference"] == difference
    assert document["values"]["kid"]["beyond"] is beyond
    assert document["values"]["fid"]["beyond"] is None
    assert document["b"] == other.receipt
    assert zoo.compare(one, "other.json").to_dict() == document


def test_a_difference_counts_from_twice_the_combined_standard_error(place):
    for kid, beyond in ((0.5 + 0.99, False), (0.5 - 0.99, False), (0.5 + 1.01, True), (0.5 - 1.01, True)):
        altered("one.json", values={"kid": 0.5, "kid_std_error": 0.3})
        altered("other.json", values={"kid": kid, "kid_std_error": 0.4})
        (row,) = zoo.compare("one.json", "other.json").rows
        assert row.beyond is beyond
    altered("other.json", values={"kid": 9.0})
    assert zoo.compare("one.json", "other.json").rows[0].beyond is None


@pytest.mark.parametrize(
    ("entry", "said"),
    [
        ("data__fingerprint", "data fingerprint"), ("data__resolution", "resolution"), ("data__channels", "channels"),
        ("real_images", "real images"), ("reference_digest", "reference digest"), ("fake_images", "fake images"),
        ("psi", "psi"), ("labels", "labels"), ("features__name", "features"), ("features__digest", "features digest"),
        ("features__resize", "resize"),
    ],
)  # fmt: skip
def test_unlike_receipts_are_not_compared(entry, said, place, capsys):
    value = 77 if said in ("resolution", "channels", "real images", "fake images", "psi") else "else"
    altered("other.json", **{f"receipt__{entry}": value})
    found = Evaluation.open("evaluation.json").receipt
    for name in entry.split("__"):
        found = found[name]
    assert f"{said} {str(found)[:16]} and {value}. Evaluate" in refused(
        capsys, "compare", "evaluation.json", "other.json"
    )


def test_every_difference_is_named_at_once(place, capsys):
    evaluated("other.json", "--psi", "1", "--samples", "41")
    said = refused(capsys, "compare", "evaluation.json", "other.json", "--json")
    assert "fake images 40 and 41; psi 0.8 and 1.0." in said
    assert "seed" not in said


def test_another_machine_device_and_model_are_no_obstacle(place, capsys):
    versions = {**Evaluation.open("evaluation.json").receipt["versions"], "torch": "9.9"}
    altered("other.json", receipt__device="cuda:0", receipt__versions=versions, receipt__model__digest="f" * 64,
            values={"kid": 1.0, "vendi": 2.0})  # fmt: skip
    printed = told(capsys, "compare", "evaluation.json", "other.json")
    assert "device: cpu and cuda:0" in printed
    assert "and 9.9" in printed
    assert "weights ffffffffffff" in printed
    assert "A alone: kid_std_error, fid" in printed
    assert "B alone: vendi" in printed


def test_receipts_without_a_value_in_common_are_not_compared(place, capsys):
    altered("other.json", values={"vendi": 2.0})
    said = refused(capsys, "compare", "evaluation.json", "other.json")
    assert "kid, kid_std_error, fid, fid_std_error and vendi" in said


# Again.


def test_what_a_receipt_says_comes_out_again(place, capsys):
    assert told(capsys, "evaluate", "--repeat", "evaluation.json").splitlines()[-1].startswith("The same values, bit")
    found = json.loads(told(capsys, "evaluate", "--repeat", "evaluation.json", "--json"))
    assert found["agrees"] is True
    assert set(found["differences"].values()) == {0}
    again, first = found["again"]["receipt"], Evaluation.open("evaluation.json").receipt
    own = ("command", "given", "model")      # the same model, from where it is now
    assert {k: v for k, v in again.items() if k not in own} == {k: v for k, v in first.items() if k not in own}


def test_a_class_conditional_model_is_repeated_with_its_labels(place, tiny):
    for label in "ab":
        (place / "sorted").mkdir(exist_ok=True)
        pictures(place / "sorted" / label, seed=ord(label), count=8)
    zoo.save(tiny("dcgan", num_classes=2), "conditional")
    evaluated("classes.json", "--reference", "10", name="dir:conditional", data="sorted")
    assert Evaluation.open("classes.json").receipt["labels"] == "as in the data"
    assert repeat("classes.json").largest == 0


def test_weights_without_a_discriminator_and_deltas_are_repeated(place, tiny, capsys):
    zoo.save(tiny("dcgan").follow(("generator",)), "parent")      # a delta of it comes without a discriminator
    short = ["--kimg", "0.016", "--batch", "8", "--on-collapse", "off", "--method", "lora:rank=2", "--out", "run"]
    assert main(["finetune", "dir:parent", "data", *short]) == 0
    (place / "parent").rename("elsewhere")
    delta = ["dir:run/delta", "--parent", "dir:elsewhere"]
    evaluated("delta.json", "--parent", "dir:elsewhere", name="dir:run/delta")
    assert "does not say where its model lies" in refused(capsys, "evaluate", "--repeat", "delta.json")
    assert "bit for bit" in told(capsys, "evaluate", "--repeat", "delta.json", *delta)


def test_a_run_is_repeated_without_touching_its_receipt(place, tiny, capsys):
    run = zoo.train(tiny("dcgan"), "data", kimg=0.016, batch=8, out="run")
    first = zoo.evaluate(run, "data", metrics=("kid",), samples=16, features="pixels")
    before = (place / "run" / "evaluation.json").read_bytes()
    assert first.receipt["given"]["model"] == "run"
    assert repeat("run").largest == 0
    assert told(capsys, "evaluate", "--repeat", "run/evaluation.json", "run").endswith("kid, kid_std_error.\n")
    assert (place / "run" / "evaluation.json").read_bytes() == before
    rows = zoo.compare(run, "run").rows
    assert [(row.name, row.difference, row.beyond) for row in rows] == [("kid", 0, False)]


def test_moved_folders_are_found_where_the_command_says(place, capsys):
    (place / "model").rename("elsewhere")
    said = refused(capsys, "evaluate", "--repeat", "evaluation.json")
    assert "its model is not at 'dir:model'; say where it is" in said
    (place / "data").rename("images")
    said = refused(capsys, "evaluate", "--repeat", "evaluation.json", "dir:elsewhere")
    assert "its data is not at 'data'" in said
    assert "bit for bit" in told(capsys, "evaluate", "--repeat", "evaluation.json", "dir:elsewhere", "images")


def test_what_was_given_as_an_object_must_be_given_again(place, tiny):
    images = zoo.data.open_images("data", resolution=16, channels=3)
    small = {"metrics": ("kid",), "samples": 8, "features": "pixels"}
    zoo.evaluate(tiny("dcgan"), images, **small).save("objects.json")
    with pytest.raises(EvaluationError, match=r"does not say where its model lies"):
        repeat("objects.json")
    with pytest.raises(EvaluationError, match=r"does not say where its data lies"):
        repeat("objects.json", tiny("dcgan"))
    heard = []
    assert repeat("objects.json", tiny("dcgan"), images, progress=lambda *told: heard.append(told)).largest == 0
    assert heard[-1] == ("fake", 8, 8)


def test_another_model_data_or_extractor_is_refused(place, tiny, capsys):
    other = tiny("dcgan")
    with torch.no_grad():
        next(other.parameters()).add_(0.01)
    zoo.save(other, "trained")
    said = refused(capsys, "evaluate", "--repeat", "evaluation.json", "dir:trained")
    assert "about other weights (sha256): " in said
    assert Evaluation.open("evaluation.json").receipt["model"]["digest"][:16] in said

    for entry, words in (("digest", "sha256 of their weights"), ("resize", "resize")):
        altered("other.json", **{f"receipt__features__{entry}": "0" * 64})
        said = refused(capsys, "evaluate", "--repeat", "other.json")
        assert f"about other features ({words}): {'0' * 16} then" in said

    (place / "data" / "0.png").unlink()
    assert "about other data (fingerprint): " in refused(capsys, "evaluate", "--repeat", "evaluation.json")


def test_other_values_end_with_1_and_are_named(place, capsys):
    values = Evaluation.open("evaluation.json").values
    altered("rounded.json", values={**values, "fid": values["fid"] * (1 + 5e-7)})
    assert "The same values but for rounding: the largest relative difference is 5e-07." in told(
        capsys, "evaluate", "--repeat", "rounded.json"
    )
    versions = {**Evaluation.open("evaluation.json").receipt["versions"], "torch": "0.4"}
    altered("moved.json", values={**values, "fid": values["fid"] * 1.5, "gone": 1.0}, receipt__versions=versions)
    printed = told(capsys, "evaluate", "--repeat", "moved.json", code=1)
    assert f"fid  {values['fid'] * 1.5:.9g} then, {values['fid']:.9g} now" in printed
    assert "gone  1 then, none now" in printed
    assert "\nkid" not in printed
    assert "torch: 0.4 and " in printed
    found = json.loads(told(capsys, "evaluate", "--repeat", "moved.json", "--json", code=1))
    assert found["agrees"] is False
    assert found["differences"] == {
        "kid": 0, "kid_std_error": 0, "fid": pytest.approx(1 / 3), "fid_std_error": 0, "gone": None,
    }  # fmt: skip


def test_the_rest_of_the_command_comes_from_the_receipt(place, capsys):
    for option in (["--samples", "50000"], ["--psi", "1"], ["--features", "pixels"], ["--force"]):
        assert f"{option[0]} is what the receipt says" in refused(
            capsys, "evaluate", "--repeat", "evaluation.json", *option
        )
    assert "needs the NAME" in refused(capsys, "evaluate", "--repeat", "evaluation.json", "--parent", "dir:model")
    assert "Missing argument 'NAME|RUN'" in refused(capsys, "evaluate")
    assert "Missing argument 'DATA'" in refused(capsys, "evaluate", "dir:model")


# Damaged.


def spoilt(change):
    def spoil(found):
        change(found)
        return json.dumps(found)

    return spoil


DAMAGE = {
    "cut": (lambda found: json.dumps(found)[:300], "JSON"),
    "empty": (lambda found: "", "JSON"),
    "list": (lambda found: "[]", "whole"),
    "number": (lambda found: "7", "whole"),
    "not finite": (lambda found: json.dumps(found).replace(str(found["values"]["fid"]), "NaN"), "read as JSON"),
    "deep": (lambda found: "[" * 60_000 + "]" * 60_000, "spoilt.json"),
    "no values": (spoilt(lambda found: found.pop("values")), "values: Field required"),
    "no receipt": (spoilt(lambda found: found.pop("receipt")), "receipt: Field required"),
    "no digest": (spoilt(lambda found: found["receipt"]["model"].pop("digest")), "receipt.model.digest: Field"),
    "no given": (spoilt(lambda found: found["receipt"].pop("given")), "receipt.given: Field required"),
    "text for a number": (spoilt(lambda found: found["receipt"].update(seed="3")), "receipt.seed"),
    "text for a value": (spoilt(lambda found: found["values"].update(kid="low")), "values.kid"),
    "older": (spoilt(lambda found: found["receipt"].pop("schema_version")), "receipt.schema_version: Field required"),
    "newer": (spoilt(lambda found: found["receipt"].update(schema_version=2)), "schema version 2, this zoo reads 1"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_damaged_receipt_is_refused_in_one_line(damage, place, capsys):
    spoil, said = DAMAGE[damage]
    (place / "spoilt.json").write_text(spoil(json.loads((place / "evaluation.json").read_text())))
    for command in (["evaluate", "--repeat", "spoilt.json"], ["compare", "spoilt.json", "evaluation.json"],
                    ["compare", "evaluation.json", "spoilt.json"]):  # fmt: skip
        seen = refused(capsys, *command)
        assert "spoilt.json" in seen
        assert said in seen


def test_where_no_receipt_is(place, capsys):
    for nothing in ("nowhere.json", "data", "x" * 5000):
        refused(capsys, "evaluate", "--repeat", nothing)
        refused(capsys, "compare", "evaluation.json", nothing)
    assert "data/evaluation.json is no file" in refused(capsys, "compare", "data", "evaluation.json")
    for nothing in (None, 7, "a\0b"):
        with pytest.raises(EvaluationError):
            zoo.compare("evaluation.json", nothing)


def test_what_a_receipt_says_reaches_no_terminal_as_it_is(place, capsys):
    altered("hostile.json", receipt__given__model="\x1b[2J", values={"kid\x1b[2J": 1.0})
    assert "\x1b" not in told(capsys, "compare", "hostile.json", "hostile.json")
