"""The fault list of images, each made for real and trained on: the short form of tests/faults/bad_images.py."""

import pytest
from faults import bad_images


def test_every_bad_image_is_handled(capsys):
    assert bad_images.main(["--short"]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "20/20 handled"


@pytest.mark.slow
def test_every_bad_image_is_handled_wherever_images_are_kept(capsys):
    assert bad_images.main([]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == "20/20 handled"
