"""Number words in three languages."""

from __future__ import annotations

import itertools

import pytest
import torch
from torch.nn import functional as F

from maskedconv import data
from maskedconv.data.number_words import (
    ALWAYS_TRAINED,
    LANGUAGES,
    SPECIAL,
    numbers_for_testing,
    pieces,
    text,
    words,
)
from maskedconv.data.translation import TranslationSet
from maskedconv.models.tokens import BOS, EOS, PAD
from maskedconv.training.config import TrainingConfig
from maskedconv.training.evaluation import evaluate
from maskedconv.training.loop import train

SAMPLES = {
    "en": {0: "zero", 21: "twenty-one", 300: "three hundred", 999: "nine hundred ninety-nine"},
    "de": {0: "null", 21: "einundzwanzig", 101: "einhunderteins", 616: "sechshundertsechzehn"},
    "fr": {21: "vingt-et-un", 71: "soixante-et-onze", 80: "quatre-vingts", 200: "deux cents",
           993: "neuf cent quatre-vingt-treize"},
}  # fmt: skip


@pytest.fixture(scope="module")
def task():
    return data.load("number-words-1000")


@pytest.mark.parametrize("language", LANGUAGES)
def test_words(language):
    for number, expected in SAMPLES[language].items():
        assert words(number, language) == expected
    assert len({words(number, language) for number in range(10_000)}) == 10_000
    assert pieces(21, "de") == ("ein\xad", "und\xad", "zwanzig")


def test_every_pair_is_a_number_in_two_languages(task):
    """Both sequences read as the words of one number; the first token names the language."""
    numbers = {language: {words(n, language): n for n in range(1000)} for language in LANGUAGES}
    seen = {}
    for part in ("train", "test"):
        pairs, targets = getattr(task, f"{part}_pairs"), getattr(task, f"{part}_targets")
        seen[part] = []
        for (source, shifted), target in zip(pairs.tolist(), targets.tolist(), strict=True):
            into = SPECIAL[source[0]].strip("<>")
            said = text(target, task.classes)
            number = numbers[into][said]
            given = text(source, task.classes)
            source_languages = [name for name in LANGUAGES if numbers[name].get(given) == number]
            assert source_languages
            assert shifted[0] == BOS
            end = target.index(EOS)
            assert shifted[1 : end + 1] == target[:end]
            assert set(target[end + 1 :]) <= {PAD}
            seen[part].append((number, source[0], given))
    # "six" is English and French: two pairs into German are one.
    assert len(set(seen["train"] + seen["test"])) == 6 * 1000 - 1
    train, test = ({number for number, *_ in seen[part]} for part in ("train", "test"))
    assert not train & test
    assert set(range(ALWAYS_TRAINED)) <= train


def test_the_split_stays():
    chosen = numbers_for_testing(1000).nonzero()[0]
    assert len(chosen) == 180
    assert chosen[:6].tolist() == FIRST_TEST_NUMBERS
    assert (numbers_for_testing(1000) == numbers_for_testing(1000)).all()


FIRST_TEST_NUMBERS = [105, 108, 114, 127, 130, 131]


@pytest.mark.parametrize("numbers", [1000, 10_000])
def test_sizes_are_those_of_the_catalogue(numbers):
    name = f"number-words-{numbers}"
    found, info = data.load(name), data.describe(name)
    assert (found.train_size, found.test_size) == (info.train_size, info.test_size)
    assert found.num_classes == len(set(found.classes))
    assert found.image_shape == (2, found.train_targets.shape[1])


def test_batches(task):
    first = list(task.train_batches(128, 0, 1))
    again = list(task.train_batches(128, 0, 1, first_batch=3))
    other = next(task.train_batches(128, 0, 2))
    assert [len(targets) for _, targets in first][-1] == task.train_size % 128
    for one, two in zip(first[3:], again, strict=True):
        assert all(map(torch.equal, one, two))
    assert not torch.equal(first[0][0], other[0])
    together = torch.cat([pairs for pairs, _ in first])
    assert sorted(together.flatten(1).tolist()) == sorted(task.train_pairs.flatten(1).tolist())
    assert torch.equal(torch.cat([t for _, t in task.test_batches(100)]), task.test_targets)


def small_task(targets):
    pairs = torch.full((len(targets), 2, targets.shape[1]), EOS + 1)
    return TranslationSet("small", pairs, targets, pairs, targets, ("",) * 6, "")


def test_loss_and_correct_ignore_padding():
    targets = torch.tensor([[3, EOS, PAD], [4, 5, EOS]])
    task = small_task(targets)
    logits = torch.randn(2, 3, 6, generator=torch.Generator().manual_seed(0))
    there = [(0, 0), (0, 1), (1, 0), (1, 1), (1, 2)]
    terms = [-logits[i, j].log_softmax(0)[targets[i, j]] for i, j in there]
    torch.testing.assert_close(task.loss(logits, targets), torch.stack(terms).mean())
    right = F.one_hot(targets, 6).float()
    right[0, 2] = torch.arange(6)
    assert int(task.correct(right, targets)) == 2
    right[1, 0] = F.one_hot(torch.tensor(3), 6)
    assert int(task.correct(right, targets)) == 1


class SameForAll(torch.nn.Module):
    """Logits of three places, whatever the pair is."""

    def __init__(self):
        super().__init__()
        self.logits = torch.nn.Parameter(torch.arange(18.0).reshape(3, 6).cos())

    def forward(self, pairs):
        return self.logits.expand(len(pairs), -1, -1)


@pytest.mark.parametrize("batch_size", [1, 2, 3])
def test_the_losses_are_means_over_all_tokens(batch_size):
    targets = torch.tensor([[3, EOS, PAD], [EOS, PAD, PAD], [4, 5, EOS]])
    task, model = small_task(targets), SameForAll()
    expected = task.loss(model(targets), targets).item()
    assert evaluate(model, task, batch_size)[0] == pytest.approx(expected, rel=1e-6)
    plain = {"momentum": 0.0, "weight_decay": 0.0, "milestones": (), "gamma": 1.0}
    config = TrainingConfig(epochs=1, batch_size=batch_size, lr=1e-12, **plain)
    (epoch,) = train(model, task, config).epochs
    assert epoch.train_loss == pytest.approx(expected, rel=1e-6)


def test_measure():
    class Says(torch.nn.Module):
        def translate(self, source, length):
            return torch.tensor([[3, EOS, PAD], [4, 4, EOS]])

    measured = small_task(torch.tensor([[3, EOS, PAD], [4, 5, EOS]])).measure(Says())
    assert measured == {"exact_match": 50.0, "token_accuracy": 80.0}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"data_dir": "."}, "data_dir: number-words-1000 is computed"),
        ({"subset": 5}, "subset is 5"),
        ({"download": True}, "download: only cifar10"),
    ],
)
def test_bad_arguments(options, message):
    with pytest.raises(data.DataError, match=message):
        data.load("number-words-1000", **options)


def test_the_package_is_missing(monkeypatch):
    import importlib.util

    find = importlib.util.find_spec
    monkeypatch.setattr(
        importlib.util, "find_spec", lambda name: None if name == "unicode_rbnf" else find(name)
    )
    with pytest.raises(data.MissingDataError, match=r"unicode-rbnf: pip install .*reproduce"):
        data.check("number-words-1000")


def test_noise_has_the_form_of_the_data(task):
    made = data.noise("number-words-1000", task.image_shape, task.num_classes, (40, 10))
    assert (made.train_size, made.test_size, made.image_shape) == (40, 10, task.image_shape)
    assert 0 < made.train_pairs.min() <= made.train_pairs.max() < task.num_classes
    assert all(a != b for a, b in itertools.pairwise(made.train_targets[:2].tolist()))
