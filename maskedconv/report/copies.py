"""Names JPEG copies of data sets, as the papers' numbers are of the original images."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from maskedconv.data.catalogue import JPEG_COPY
from maskedconv.report.document import Block, Table
from maskedconv.report.results import SeedGroup, dataset_title
from maskedconv.report.tables import NOTHING

# Columns of a table that has comparable numbers of others beside ours, up to their comma.
_COMPARING = ("paper", "authors", "theirs", "ours")


def copied(settings: Iterable[SeedGroup]) -> list[str]:
    """Names of the data sets whose images are a JPEG copy, according to the notes on the data."""
    notes = ((setting.config.dataset, note) for setting in settings for note in setting.notes)
    return list(dict.fromkeys(dataset for dataset, note in notes if JPEG_COPY in note))


def with_copies(block: Block, settings: Sequence[SeedGroup]) -> Block:
    """The block; the caption of a table of ours and others' numbers then names our copies.

    Args:
        settings: of the section that the block belongs to.
    """
    names = " and ".join(map(dataset_title, copied(settings)))
    if not names or not isinstance(block, Table):
        return block
    places = [i for i, one in enumerate(block.columns) if one.partition(",")[0] in _COMPARING]
    if all(row[place] == NOTHING for row in block.rows for place in places):
        return block
    caption, ours = block.caption, f"ours: {names} {JPEG_COPY}"
    told = f"{caption} O{ours[1:]}." if caption.endswith(".") else f"{caption}; {ours}"
    return replace(block, caption=told)
