"""Runs that several processes execute together."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from killed_runs import SMALL, small_dataset

from maskedconv.data.share import Share
from maskedconv.runs import execute


def test_each_process_has_its_own_dropout(monkeypatch):
    drawn = []

    class Ended(Exception):
        """The training begins."""

    def train(*arguments, **options):
        drawn.append(torch.rand(8).tolist())
        raise Ended

    monkeypatch.setattr(execute, "train", train)
    whole, config = small_dataset(), replace(SMALL, processes=3, keep=False)
    assert "Ended" in execute.execute(config, whole.shared(Share(0, 3)))["error"]
    for rank in (1, 2):
        with pytest.raises(Ended):
            execute.follow(config, whole.shared(Share(rank, 3)), "off")
    assert len({number for numbers in drawn for number in numbers}) == 24
