"""`translation`: sentences of two languages, one tokenised sentence a line, as of IWSLT 2015 (supplement, section 11).

A corpus is a folder with train.A, train.B, valid.A, valid.B, test.A and test.B; the suffixes A and B, any two, name the
modalities, in alphabetical order. It is looked for as the data root itself, then as its folder en-vi. Words are what
stands between blanks; those that occur at least FEWEST times in the training part, and are among the MOST_WORDS most
frequent, are known to models, all others are <unk> to them. A pair with more than MOST_TOKENS words in a sentence is
left out of its split.
"""

from __future__ import annotations

import codecs
import functools
import hashlib
import logging
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from mvae.data.dataset import NO_IMAGES, SPLITS, Arrays, Defaults, Kind, MissingFiles, Modality, Source
from mvae.data.sentences import SPECIAL, UNKNOWN_WORD, ragged
from mvae.files import sha256_cached
from mvae.refusal import Refusal

log = logging.getLogger(__name__)

FOLDER = "en-vi"
"""Of the corpus under the data root."""

FILES = {"train": "train", "validation": "valid", "test": "test"}
"""Stems of the files of each split."""

MOST_TOKENS = 70
"""Words of a sentence at most (supplement, section 11)."""

CLASSES = 10_000
"""Tokens that a model knows at most: words, <unk>, stop and start."""

MOST_WORDS = CLASSES - SPECIAL

FEWEST = 5
"""Times that a word must be seen in training to be known."""

Pairs = tuple[list[list[str]], list[list[str]]]
"""The words of each sentence, in both languages."""


@dataclass(frozen=True)
class Corpus:
    """A corpus as it was read."""

    languages: tuple[str, str]
    pairs: dict[str, Pairs]
    """By split."""


def find(root: Path) -> dict[str, tuple[Path, Path]]:
    """The two files of each split.

    Raises:
        MissingFiles: one line: there is no corpus, it has not two languages, or a file is missing.
    """
    folder = root if any(root.glob("train.*")) else root / FOLDER
    suffixes = sorted(path.suffix[1:] for path in folder.glob("train.*"))
    wanted = "train.A, train.B, valid.A, valid.B, test.A and test.B with any two suffixes A and B"
    if len(suffixes) != 2:
        found = f"has {', '.join(f'train.{suffix}' for suffix in suffixes)}" if suffixes else "is no corpus"
        raise MissingFiles(f"{folder} {found}: put {wanted} there, one sentence a line, or give --corpus a folder")
    files = {
        split: (folder / f"{stem}.{suffixes[0]}", folder / f"{stem}.{suffixes[1]}") for split, stem in FILES.items()
    }
    for path in (path for both in files.values() for path in both):
        if not path.is_file():
            raise MissingFiles(f"{path} is missing: a corpus is {wanted}")
    return files


def check(root: Path) -> None:
    """Raise MissingFiles unless all six files are there."""
    find(root)


def languages(root: Path) -> tuple[str, str]:
    """The names of the two languages: the suffixes of the files.

    Raises:
        MissingFiles: as `find`.
    """
    one, other = find(root)["train"]
    return one.suffix[1:], other.suffix[1:]


def digest(root: Path) -> str:
    """Hex sha256 over the six files' contents and the names of the languages."""
    digests = [sha256_cached(path) for both in find(root).values() for path in both]
    return hashlib.sha256(" ".join([*languages(root), *digests]).encode()).hexdigest()


def read_sentences(path: Path) -> list[list[str]]:
    """The words of every line of a file.

    Raises:
        Refusal: one line with file and line number: bytes that are no UTF-8, or a line without words.
    """
    sentences = []
    lines = path.read_bytes().removeprefix(codecs.BOM_UTF8).removesuffix(b"\n").split(b"\n")
    for number, line in enumerate(lines, start=1):
        try:
            words = line.removesuffix(b"\r").decode().replace("\t", " ").split(" ")
        except UnicodeDecodeError as error:
            bad = line[error.start]
            raise Refusal(f"{path}, line {number}: byte {bad:#04x} is no UTF-8: convert the file to UTF-8") from None
        words = [word for word in words if word]
        if not words:
            raise Refusal(f"{path}, line {number} is empty: each line of both files must hold a sentence")
        sentences.append(words)
    return sentences


def read_pairs(one: Path, other: Path) -> Pairs:
    """The sentence pairs of two files, line by line, less those that are too long.

    Raises:
        Refusal: as `read_sentences`; the files have not the same number of lines; no pair is left.
    """
    both = read_sentences(one), read_sentences(other)
    counts = tuple(map(len, both))
    if counts[0] != counts[1]:
        longer, shorter = (one, other) if counts[0] > counts[1] else (other, one)
        raise Refusal(
            f"{longer}, line {min(counts) + 1} has no counterpart: {shorter} has {min(counts):,} lines,"
            f" and {longer.name} has {max(counts):,}"
        )
    kept = [pair for pair in zip(*both, strict=True) if max(map(len, pair)) <= MOST_TOKENS]
    if not kept:
        raise Refusal(f"{one} has no pair of at most {MOST_TOKENS} words a sentence")
    if len(kept) < counts[0]:
        log.info("%s: %d pairs of more than %d words left out", one.parent, counts[0] - len(kept), MOST_TOKENS)
    return [pair[0] for pair in kept], [pair[1] for pair in kept]


def read(root: Path) -> Corpus:
    """A whole corpus.

    Raises:
        Refusal: as `find` and `read_pairs`.
    """
    files = find(root)
    versions = tuple((path.stat().st_mtime_ns, path.stat().st_size) for both in files.values() for path in both)
    return _read(root, versions)


@functools.lru_cache(maxsize=1)
def _read(root: Path, _versions: tuple[tuple[int, int], ...]) -> Corpus:
    return Corpus(languages(root), {split: read_pairs(*both) for split, both in find(root).items()})


def vocabulary(
    training: Sequence[Sequence[str]], others: Sequence[Sequence[str]], fewest: int
) -> tuple[list[str], int]:
    """Every word by its number, and C, how many tokens a model knows.

    <unk> first, then the words that are known, the most frequent first, equally frequent ones by the alphabet; then,
    in the same order, the other words of the training part, and those of no training sentence.
    """
    counts = Counter(word for sentence in training for word in sentence)
    counts.update(dict.fromkeys({word for sentence in others for word in sentence}, 0))
    counts.pop(UNKNOWN_WORD, None)
    ordered = sorted(counts, key=lambda word: (-counts[word], word))
    known = min(MOST_WORDS, sum(count >= max(1, fewest) for count in counts.values()))
    return [UNKNOWN_WORD, *ordered], known + SPECIAL


def modalities_of(corpus: Corpus, fewest: int) -> tuple[Modality, ...]:
    """Both languages, with their words.

    Raises:
        Refusal: no word occurs often enough to be known.
    """
    made = []
    for m, language in enumerate(corpus.languages):
        training = corpus.pairs["train"][m]
        others = [sentence for split in SPLITS[1:] for sentence in corpus.pairs[split][m]]
        words, classes = vocabulary(training, others, fewest)
        if classes == SPECIAL:
            raise Refusal(
                f"no word of train.{language} occurs {fewest} times, so none would be known: give a larger corpus"
            )
        made.append(_language(language, classes, tuple(words)))
    return tuple(made)


def arrays_of(corpus: Corpus, modalities: tuple[Modality, ...]) -> Arrays:
    """The sentences as numbers of words."""
    arrays: Arrays = {}
    for split in SPLITS:
        columns = []
        for modality, sentences in zip(modalities, corpus.pairs[split], strict=True):
            numbers = {word: number for number, word in enumerate(modality.words)}
            columns.append(ragged([[numbers[word] for word in sentence] for sentence in sentences]))
        arrays[split] = tuple(columns)
    return arrays


def made_of(root: Path) -> tuple[Modality, ...]:
    """The two languages of a corpus."""
    return modalities_of(read(root), FEWEST)


def convert(root: Path) -> Arrays:
    """Read a whole corpus as numbers of words."""
    corpus = read(root)
    return arrays_of(corpus, modalities_of(corpus, FEWEST))


def training_examples(root: Path) -> int:
    """Pairs of the training part."""
    return len(read(root).pairs["train"][0])


def _language(name: str, classes: int, words: tuple[str, ...] = ()) -> Modality:
    return Modality(name, Kind.TEXT, (MOST_TOKENS + 1,), classes, words=words, sentences=True)


TRANSLATION = Source(
    name="translation",
    modalities=(_language("en", CLASSES), _language("vi", CLASSES)),
    defaults=Defaults(
        latents=100,
        epochs=20,
        image_network=NO_IMAGES,
        image_networks=(NO_IMAGES,),
        pairing="proportional",
    ),
    split_rule=f"the corpus' own; pairs of more than {MOST_TOKENS} words left out; words seen {FEWEST} times known",
    version=1,
    check=check,
    digest=digest,
    examples=training_examples,
    convert=convert,
    made_of=made_of,
)
