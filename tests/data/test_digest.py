"""Digests tell the examples of data sets apart."""

from __future__ import annotations

import dataclasses

import pytest

from maskedconv import data
from maskedconv.data import Dataset
from maskedconv.data.share import Share

DIGITS = data.load("digits")


def test_a_digest_is_of_the_examples_alone():
    again = data.load("digits")
    assert again.digest == DIGITS.digest
    assert dataclasses.replace(again, note="other words").digest == DIGITS.digest
    assert again.shared(Share(1, 2)).digest == again.to("cpu").digest == DIGITS.digest


@pytest.mark.parametrize("field", ["train_images", "train_labels", "test_images", "test_labels"])
def test_one_other_value_is_another_digest(field):
    assert isinstance(DIGITS, Dataset)
    values = getattr(DIGITS, field).clone()
    values.view(-1)[3] += 1
    assert dataclasses.replace(DIGITS, **{field: values}).digest != DIGITS.digest
    moved = getattr(DIGITS, field).flip(0)
    assert dataclasses.replace(DIGITS, **{field: moved}).digest != DIGITS.digest


def test_choices_have_digests_of_their_own():
    digests = {DIGITS.digest, DIGITS.take_test(3, 0).digest, DIGITS.take_test(3, 1).digest}
    assert len(digests) == 3
    assert DIGITS.take_test(3, 0).digest == DIGITS.take_test(3, 0).digest


def test_number_words_have_digests():
    words, more = (data.load(f"number-words-{count}") for count in (1000, 10000))
    assert words.digest != more.digest
    assert data.load("number-words-1000").digest == words.digest
