"""Random examples of each class, drawn from a seed."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from maskedconv.data.errors import DataError

Labels = npt.NDArray[np.int64]


def subset_of(labels: Labels, per_class: int, seed: int) -> npt.NDArray[np.intp]:
    """The indices, ascending, of ``per_class`` random examples of each class in ``labels`` [N]."""
    chosen = []
    for label in range(int(labels.max()) + 1):
        members = np.flatnonzero(labels == label)
        order = np.random.default_rng([seed, label]).permutation(len(members))
        chosen.append(members[order[:per_class]])
    return np.sort(np.concatenate(chosen))


def checked_subset(
    labels: Labels,
    classes: tuple[str, ...],
    per_class: int,
    seed: int,
) -> npt.NDArray[np.intp]:
    """As :func:`subset_of`, of test images.

    Raises:
        DataError: a class has fewer than ``per_class`` test images, or ``per_class`` is below 1.
    """
    counts = np.bincount(labels, minlength=len(classes))
    smallest = int(counts.argmin())
    if not 1 <= per_class <= counts[smallest]:
        raise DataError(
            f"test_subset is {per_class} images per class; expected 1 to {counts[smallest]}, the "
            f"test images of class {classes[smallest]!r}"
        )
    return subset_of(labels, per_class, seed)


def fewer_test_images(note: str, count: int, whole: int) -> str:
    """The note of a data set that uses only ``count`` of its ``whole`` test images."""
    return f"{note}; {count:,} of {whole:,} test images"
