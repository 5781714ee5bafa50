"""`toy_translation`: two small languages made by a grammar, for the demo and for tests; it needs no files.

A sentence says who does what to whom, maybe where. Both languages have a word for each idea; the second puts what
describes a noun behind it and the place first, and has no articles, so that no word stands where its counterpart does.
"""

import functools
import hashlib

import numpy as np

from mvae.data.dataset import NO_IMAGES, SPLITS, Defaults, Source
from mvae.data.sentences.translation import Corpus, Pairs

VERSION = 1

SEED = 1802

COUNTS = {"train": 2000, "validation": 100, "test": 100}

NOUNS = {"cat": "mio", "dog": "vuf", "bird": "tui", "fish": "olo", "child": "bim", "farmer": "gart", "queen": "rena"}
VERBS = {"sees": "vid", "likes": "amo", "follows": "seku", "feeds": "nutri", "hears": "audi"}
QUALITIES = {"red": "ruzo", "old": "vex", "small": "piko", "happy": "feli", "quiet": "kalm"}
PLACES = {"garden": "hort", "house": "dom", "forest": "silv", "river": "flum"}


def pairs(count: int, start: int) -> Pairs:
    """So many sentence pairs, the words of each; different for another start.

    It uses the bit generator's raw stream, which never changes between numpy versions.
    """
    words = np.random.Philox(key=SEED).advance(start * 8).random_raw(count * 8).reshape(count, 8)
    tables = [list(table.items()) for table in (NOUNS, VERBS, NOUNS, QUALITIES, QUALITIES, PLACES)]
    here, there = [], []
    for row in words.tolist():
        who, deed, whom, quality, second, place = (
            table[word % len(table)] for table, word in zip(tables, row, strict=False)
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
    """All three splits, with every word of the training part known; sentences are drawn alike, so that some of the test
    part are in the training part too."""
    starts = dict(zip(SPLITS, np.cumsum([0, *COUNTS.values()]).tolist(), strict=False))
    made = {split: pairs(COUNTS[split], starts[split]) for split in SPLITS}
    return Corpus(("here", "there"), made, too_long=dict.fromkeys(SPLITS, 0), fewest=1)


TOY_TRANSLATION = Source(
    name="toy_translation",
    modalities=corpus().modalities,
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
    convert=lambda _root: corpus().arrays,
    made_of=lambda _root: corpus().modalities,
    facts=lambda _root, known: corpus().facts(known),
)
