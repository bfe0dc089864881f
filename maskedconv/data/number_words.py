"""Number words in three languages: the translation task that needs no corpus.

The words are those of the Unicode CLDR's spell-out rules, from the package unicode-rbnf. Examples
are all ordered pairs of two languages for each number; a network is told the language to translate
into by the first token. The paper (Shen et al. 2021) translates sentences.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Sequence
from functools import cache
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from maskedconv.data.errors import optional_import
from maskedconv.data.translation import TranslationSet
from maskedconv.models.tokens import BOS, EOS, PAD

LANGUAGES = ("en", "de", "fr")
SPECIAL = ("<pad>", "<bos>", "<eos>", *(f"<{language}>" for language in LANGUAGES))
# Every word for a number below it is in the training set.
ALWAYS_TRAINED = 100
TEST_FRACTION = 0.2
# CLDR marks the parts of a German word by soft hyphens, which are not printed.
_SOFT_HYPHEN = "\xad"
_PIECE = re.compile(rf"[^ \-{_SOFT_HYPHEN}]+[ \-{_SOFT_HYPHEN}]?")


def words(number: int, language: str) -> str:
    """``number`` in words, such as "einundzwanzig".

    Raises:
        ImportError: unicode-rbnf is not installed; names the remedy.
    """
    return "".join(pieces(number, language)).replace(_SOFT_HYPHEN, "")


def pieces(number: int, language: str) -> tuple[str, ...]:
    """The parts of a number's words, each with the space or hyphen behind it.

    A German word is divided at CLDR's soft hyphens: "ein", "und", "zwanzig".
    """
    engine, options = _engine(language)
    text = engine.format_number(number, options=options).text
    return tuple(_PIECE.findall(text))


@cache
def _engine(language: str) -> tuple[Any, Any]:
    rbnf = optional_import("unicode_rbnf.engine")
    return rbnf.RbnfEngine.for_language(language), rbnf.FormatOptions.PRESERVE_SOFT_HYPENS


def number_words(name: str, numbers: int) -> TranslationSet:
    """The numbers below ``numbers`` in all pairs of languages; a fifth of them for testing.

    Raises:
        ImportError: unicode-rbnf is not installed; names the remedy.
    """
    spelled = {language: [pieces(n, language) for n in range(numbers)] for language in LANGUAGES}
    vocabulary = (*SPECIAL, *sorted({p for said in spelled.values() for one in said for p in one}))
    length = 1 + max(len(one) for said in spelled.values() for one in said)
    tokens = {piece: token for token, piece in enumerate(vocabulary)}
    coded = {
        language: [[tokens[piece] for piece in one] for one in said]
        for language, said in spelled.items()
    }
    is_test = numbers_for_testing(numbers)
    train, test = (
        _examples(coded, np.flatnonzero(chosen).tolist(), length) for chosen in (~is_test, is_test)
    )
    return TranslationSet(
        name=name,
        train_pairs=train[0],
        train_targets=train[1],
        test_pairs=test[0],
        test_targets=test[1],
        classes=vocabulary,
        note=f"numbers below {numbers:,} in words, English, German and French (Unicode CLDR); "
        f"every pair of languages; {int(is_test.sum()):,} numbers for testing",
    )


def numbers_for_testing(numbers: int) -> npt.NDArray[np.bool_]:
    """Bool [numbers]: a fifth of those from ``ALWAYS_TRAINED`` on, the same in every release."""
    chosen = np.zeros(numbers, bool)
    order = np.random.RandomState(0).permutation(np.arange(ALWAYS_TRAINED, numbers))
    chosen[order[: round(TEST_FRACTION * len(order))]] = True
    return chosen


def _examples(
    coded: dict[str, list[list[int]]], numbers: Iterable[int], length: int
) -> tuple[Tensor, Tensor]:
    """Pairs [N, 2, length] and targets [N, length] of each number in all pairs of languages."""
    pairs, targets = [], []
    chosen = list(numbers)
    for source, target in itertools.permutations(LANGUAGES, 2):
        tag = SPECIAL.index(f"<{target}>")
        for number in chosen:
            said = coded[target][number]
            given = _padded([tag, *coded[source][number]], length)
            pairs.append([given, _padded([BOS, *said], length)])
            targets.append(_padded([*said, EOS], length))
    return torch.tensor(pairs), torch.tensor(targets)


def _padded(tokens: Sequence[int], length: int) -> list[int]:
    return [*tokens, *[PAD] * (length - len(tokens))]


def text(tokens: Iterable[int], vocabulary: Sequence[str]) -> str:
    """The words of ``tokens`` up to EOS."""
    before = itertools.takewhile(lambda token: token != EOS, tokens)
    said = "".join(vocabulary[token] for token in before if token >= len(SPECIAL))
    return said.replace(_SOFT_HYPHEN, "")
