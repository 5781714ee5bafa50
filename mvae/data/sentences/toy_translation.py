"""`toy_translation`: two small languages made by a grammar, for the demo and for tests; it needs no files.

A sentence says who does what to whom, maybe where. Both languages have a word for each idea; the second puts what
describes a noun behind it and the place first, and has no articles, so that no word stands where its counterpart does.
"""

from __future__ import annotations

import functools
import hashlib
from pathlib import Path

import numpy as np

from mvae.data.dataset import NO_IMAGES, SPLITS, Arrays, Defaults, Modality, Source
from mvae.data.sentences.translation import Corpus, Pairs, arrays_of, facts_of, modalities_of

VERSION = 1

SEED = 1802

COUNTS = {"train": 2000, "validation": 100, "test": 100}

LANGUAGES = ("here", "there")

NOUNS = {"cat": "mio", "dog": "vuf", "bird": "tui", "fish": "olo", "child": "bim", "farmer": "gart", "queen": "rena"}
VERBS = {"sees": "vid", "likes": "amo", "follows": "seku", "feeds": "nutri", "hears": "audi"}
QUALITIES = {"red": "ruzo", "old": "vex", "small": "piko", "happy": "feli", "quiet": "kalm"}
PLACES = {"garden": "hort", "house": "dom", "forest": "silv", "river": "flum"}


def pairs(count: int, start: int) -> Pairs:
    """So many sentence pairs, the words of each; different for another start.

    It uses the bit generator's raw stream, which never changes between numpy versions.
    """
    words = np.random.Philox(key=SEED).advance(start * 8).random_raw(count * 8).reshape(count, 8)
    here, there = [], []
    for row in words.tolist():
        who, deed, whom, quality, second, place = (
            list(table.items())[word % len(table)]
            for table, word in zip((NOUNS, VERBS, NOUNS, QUALITIES, QUALITIES, PLACES), row, strict=False)
        )
        described, more, where = row[6] % 3 > 0, row[7] % 3 == 0, row[7] % 2 == 0
        here.append(
            ["the", *[quality[0]] * described, who[0], deed[0], "a", *[second[0]] * more, whom[0]]
            + ["in", "the", place[0]] * where
            + ["."]
        )
        there.append(
            [place[1], "ne"] * where + [who[1], *[quality[1]] * described, whom[1], *[second[1]] * more, deed[1], "."]
        )
    return here, there


@functools.cache
def corpus() -> Corpus:
    """All three splits; sentences are drawn alike, so that some of the test part are in the training part too."""
    starts = dict(zip(SPLITS, np.cumsum([0, *COUNTS.values()]).tolist(), strict=False))
    return Corpus(LANGUAGES, {split: pairs(COUNTS[split], starts[split]) for split in SPLITS}, dict.fromkeys(SPLITS, 0))


def made_of(_root: Path) -> tuple[Modality, ...]:
    """Both languages, of which every word of the training part is known."""
    return modalities_of(corpus(), fewest=1)


def facts(root: Path, words: int | None) -> tuple[str, ...]:
    """How many pairs each part has, and how much of them is <unk>."""
    modalities = made_of(root)
    return facts_of(corpus(), modalities if words is None else tuple(one.knowing(words) for one in modalities))


def convert(_root: Path) -> Arrays:
    """The sentences as numbers of words."""
    return arrays_of(corpus(), made_of(_root))


TOY_TRANSLATION = Source(
    name="toy_translation",
    modalities=made_of(Path()),
    defaults=Defaults(
        latents=32,
        epochs=8,
        image_network=NO_IMAGES,
        image_networks=(NO_IMAGES,),
        pairing="proportional",
        batch_size=50,
        learning_rate=3e-3,
    ),
    split_rule=f"drawn alike with seed {SEED}: {', '.join(f'{count:,} {split}' for split, count in COUNTS.items())}",
    version=VERSION,
    check=lambda _root: None,
    digest=lambda _root: hashlib.sha256(f"{VERSION} {SEED} {COUNTS}".encode()).hexdigest(),
    examples=lambda _root: COUNTS["train"],
    convert=convert,
    made_of=made_of,
    facts=facts,
)
