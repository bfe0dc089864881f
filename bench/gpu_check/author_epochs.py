"""The authors' one-epoch runs, as cases of the last step."""

from __future__ import annotations

from maskedconv.papers.rosenfeld2018.author_runs import AuthorRun, author_runs

FIRST_EPOCH = ("1 epoch", "epoch 1 of 10")


def name(run: AuthorRun) -> str:
    """The name of the setting."""
    parts = (run.model, run.learned, run.slice_dim, run.frozen, run.bn_learned, run.trained)
    return " | ".join(map(str, parts))


def names(dataset: str) -> tuple[str, ...]:
    """Every setting on a data set once, in the order of the file."""
    runs = (run for run in author_runs() if run.run in FIRST_EPOCH and run.dataset == dataset)
    return tuple(dict.fromkeys(name(run) for run in runs))


def published(case: str, dataset: str) -> list[float]:
    """Top-1 in percent after the first epoch in the authors' results."""
    return [
        run.top1
        for run in author_runs()
        if run.run in FIRST_EPOCH and run.dataset == dataset and name(run) == case
    ]
