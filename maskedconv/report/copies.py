"""Names JPEG copies of data sets, as the papers' numbers are of the original images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from maskedconv.data.catalogue import JPEG_COPY
from maskedconv.report.document import Block, Table
from maskedconv.report.results import SeedGroup, dataset_title

# Beginnings of the columns of a table that has numbers of others beside ours.
_BESIDE_OTHERS = ("difference", "ours", "authors")


def copied(settings: Iterable[SeedGroup]) -> list[str]:
    """Names of the data sets whose images are a JPEG copy, according to the notes on the data."""
    notes = ((setting.config.dataset, note) for setting in settings for note in setting.notes)
    return list(dict.fromkeys(dataset for dataset, note in notes if JPEG_COPY in note))


def with_copies(block: Block, settings: Sequence[SeedGroup]) -> Block:
    """The block; a table of ours and others' numbers gets a caption that names our copies.

    Args:
        settings: of the section that the block belongs to.
    """
    names = " and ".join(map(dataset_title, copied(settings)))
    if not names or not isinstance(block, Table):
        return block
    if not any(column.startswith(_BESIDE_OTHERS) for column in block.columns):
        return block
    caption, ours = block.caption, f"ours: {names} {JPEG_COPY}"
    told = f"{caption} O{ours[1:]}." if caption.endswith(".") else f"{caption}; {ours}"
    return replace(block, caption=told)
