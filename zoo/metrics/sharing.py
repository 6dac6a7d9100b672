"""Features of many images, by one process or by all of a launch: each computes every so many-th batch."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, cast

import torch
from torch import Tensor

from zoo.errors import ZooError

if TYPE_CHECKING:
    from accelerate import Accelerator

    from zoo.metrics.features import FeatureExtractor

T = TypeVar("T")


@dataclass(frozen=True)
class Crew:
    """The processes that share the work. The batches are those of one process, and so are the features, to the bit."""

    accelerator: Accelerator | None = None      # None: this process alone

    @classmethod
    def of_launch(cls) -> Crew:
        """Return all processes of the launch that this one is of; each of them must call this.

        Raises:
            RunError: another number of processes found each other than was asked for.
        """
        from zoo.training.engine import engine

        return cls(engine("no")[0])

    @property
    def device(self) -> torch.device | None:
        """This process's device; None: the caller's choice."""
        if self.accelerator is None:
            return None
        place = self.accelerator.device
        return torch.device("cpu") if place.type == "cpu" else place      # it numbers even the one CPU

    @property
    def leads(self) -> bool:
        """Whether this process speaks, and computes what is not shared."""
        return self.accelerator is None or self.accelerator.is_main_process

    def features(
        self,
        read: Callable[[int, int], Tensor],
        n: int,
        extractor: FeatureExtractor,
        *,
        batch: int,
        progress: Callable[[int], None],
    ) -> Tensor:
        """Return features [n, d] of images 0 to n, in every process.

        Args:
            read: from start and stop to uint8 images [stop - start, C, H, W].
            progress: called with the number of images done.
        """
        processes, rank = (1, 0) if self.accelerator is None else self._place(self.accelerator)
        mine, starts = {}, range(0, n, batch)
        for place, start in enumerate(starts):
            if place % processes == rank:
                mine[place] = extractor(read(start, min(start + batch, n)))
            if (place + 1) % processes == 0 or place == len(starts) - 1:
                progress(min(start + batch, n))
        parts = self._all(mine)
        return torch.cat([parts[place] for place in range(len(starts))])

    def from_lead(self, work: Callable[[], T]) -> T:
        """Return in every process what the first one finds. Where it fails, all fail."""
        if self.accelerator is None:
            return work()
        from accelerate.utils import broadcast_object_list

        found: list[tuple[T | None, ZooError | None]] = [(None, None)]
        if self.leads:
            try:
                found = [(work(), None)]
            except ZooError as error:
                found = [(None, error)]
        (value, failure), = broadcast_object_list(found)
        if failure is not None:
            raise failure
        return cast(T, value)

    def agreed(self, mine: bool) -> bool:
        """Return whether all processes say yes; all must come here."""
        return all(self._gathered(mine))

    @staticmethod
    def _place(accelerator: Accelerator) -> tuple[int, int]:
        return accelerator.num_processes, accelerator.process_index

    def _all(self, mine: dict[int, Tensor]) -> dict[int, Tensor]:
        return {place: part for held in self._gathered(mine) for place, part in held.items()}

    def _gathered(self, mine: T) -> list[T]:
        if self.accelerator is None:
            return [mine]
        from accelerate.utils import gather_object

        found: list[T] = gather_object([mine])
        return found
