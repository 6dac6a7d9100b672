"""What stands between images and the networks that judge them, so that a critic cannot learn few images by heart."""

from zoo.training.augmentation.augmenter import Augmenter, check

__all__ = ["Augmenter", "check"]
