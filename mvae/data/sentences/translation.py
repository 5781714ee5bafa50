"""Defines `translation`: pairs of tokenised sentences, one per line, as in IWSLT 2015 (supplement, section 11).

A corpus is a folder with train.A, train.B, valid.A, valid.B, test.A and test.B. A and B are any two suffixes; they name
the modalities, in alphabetical order. The folder is either the data root itself or its subfolder en-vi.

Words are converted to Unicode's normal form C and separated by any white space. The vocabulary holds the CLASSES - 3
most frequent words that occur at least FEWEST times in the training split. Models see every other word as <unk>. Pairs
with a sentence of more than MOST_TOKENS words are left out. `facts` reports the numbers of unknown words and omitted
pairs.
"""

import codecs
import functools
import hashlib
import re
import unicodedata
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mvae.data.dataset import NO_IMAGES, SPECIAL, SPLITS, Arrays, Defaults, Kind, MissingFiles, Modality, Source
from mvae.data.sentences.text import UNKNOWN_WORD, ragged
from mvae.refusal import Refusal
from mvae.storage.files import file_version, sha256_cached
from mvae.storage.place import Version

FILES = {"train": "train", "validation": "valid", "test": "test"}
"""File name of each split, without suffix."""

MOST_TOKENS = 70
"""Largest number of words in a sentence (supplement, section 11)."""

CLASSES = 10_000
"""Largest number of tokens that a model knows: words, <unk>, stop and start."""

FEWEST = 5
"""Smallest number of occurrences of a known word in the training split."""

SEPARATORS = {0x200B: " ", 0xFEFF: " ", 0x00AD: "", 0x2060: ""}
"""Zero-width characters and their replacements.

The zero width space and byte order marks (from joined files) separate words. Soft hyphens and word joiners are removed.
"""

UNUSUAL = re.compile(r"[^\S \t\n\r]|\r(?!\n|\Z)|[\u200b\ufeff\u00ad\u2060]")
"""Pattern of zero-width characters, and of white space except blanks, tabs and the line ends of Unix and Windows."""

Pairs = tuple[list[list[str]], list[list[str]]]
"""The words of each sentence, in both languages."""


@dataclass(frozen=True)
class Corpus:
    """A corpus in memory: two languages, and the sentence pairs of each split."""

    languages: tuple[str, str]
    pairs: dict[str, Pairs]
    """Sentence pairs of each split, without overlong pairs."""
    too_long: dict[str, int]
    """Number of pairs left out of each split."""
    rewritten: bool = False
    """Whether a file is not in normal form C or has unusual separators, so that words differ from the file's bytes."""
    fewest: int = FEWEST

    @functools.cached_property
    def modalities(self) -> tuple[Modality, ...]:
        """Both languages as modalities, with their words.

        Raises:
            Refusal: no word occurs often enough to be in the vocabulary.
        """
        made = []
        for m, language in enumerate(self.languages):
            training = self.pairs["train"][m]
            others = [sentence for split in SPLITS[1:] for sentence in self.pairs[split][m]]
            words, classes = vocabulary(training, others, self.fewest)
            if classes == SPECIAL:
                raise Refusal(
                    f"no word in train.{language} occurs {self.fewest} times, so the vocabulary would be empty:"
                    " give a larger corpus"
                )
            made.append(_language(language, classes, tuple(words)))
        return tuple(made)

    @property
    def arrays(self) -> Arrays:
        """The sentences of each split and language, as arrays of word numbers."""

        def numbered(modality: Modality, sentences: list[list[str]]) -> np.ndarray:
            numbers = {word: number for number, word in enumerate(modality.words)}
            return ragged([[numbers[word] for word in sentence] for sentence in sentences])

        return {split: tuple(map(numbered, self.modalities, self.pairs[split])) for split in SPLITS}

    def facts(self, known: int | None) -> tuple[str, ...]:
        """Returns one line per split.

        A line has the number of pairs, the number of pairs left out, and the share of <unk> in each language.

        Args:
            known: largest number of words that a model knows. If None, the corpus's own number.
        """
        lines = []
        for split, stem in FILES.items():
            texts = zip(self.modalities, self.pairs[split], strict=True)
            shares = [f"{one.name} {unknown_share(one, sentences, known):.1%}" for one, sentences in texts]
            count = len(self.pairs[split][0])
            lines.append(
                f"{stem} has {count:,} pair{'s' * (count != 1)}, {self.too_long[split]:,} left out because a sentence"
                f" has more than {MOST_TOKENS} words; share of {UNKNOWN_WORD}: {', '.join(shares)}"
            )
        return tuple(lines)


def find(root: Path) -> dict[str, tuple[Path, Path]]:
    """Returns the two files of each split.

    Raises:
        MissingFiles: the corpus is missing, does not have two languages, or lacks a file.
    """
    folder = root if any(root.glob("train.*")) else root / "en-vi"
    names = sorted(path.name for path in folder.glob("train.*"))
    suffixes = [name.removeprefix("train.") for name in names]
    wanted = "train.A, train.B, valid.A, valid.B, test.A and test.B with any two suffixes A and B"
    if len(names) != 2 or any("." in suffix for suffix in suffixes):
        found = f"has {', '.join(names)}" if names else "holds no corpus"
        raise MissingFiles(f"{folder} {found}: put {wanted} there, one sentence per line, or give --corpus a folder")
    files = {
        split: (folder / f"{stem}.{suffixes[0]}", folder / f"{stem}.{suffixes[1]}") for split, stem in FILES.items()
    }
    for path in (path for both in files.values() for path in both):
        if not path.is_file():
            raise MissingFiles(f"{path} is missing: a corpus needs {wanted}")
    return files


def languages(root: Path) -> tuple[str, str]:
    """Returns the names of the two languages, which are the suffixes of the files.

    Raises:
        MissingFiles: same as `find`.
    """
    one, other = find(root)["train"]
    return one.suffix[1:], other.suffix[1:]


def digest(root: Path) -> str:
    """Returns a hex sha256 of the six files' contents and the names of the languages.

    Earlier releases did not normalise words. A corpus that normalisation does not change keeps its earlier digest.

    Raises:
        Refusal: same as `read`.
    """
    return _digest(root, *["normalised-2"] * read(root).rewritten)


def _digest(root: Path, *also: str) -> str:
    """Returns a digest of the languages, the files' bytes and the strings in `also`.

    If `also` is empty, the digest is the same as in earlier releases.
    """
    digests = [sha256_cached(path) for both in find(root).values() for path in both]
    return hashlib.sha256(" ".join([*languages(root), *digests, *also]).encode()).hexdigest()


def decoded(path: Path) -> str:
    """Returns the text of a file, without its byte order mark.

    Raises:
        Refusal: the file is not UTF-8 or has zero bytes, as UTF-16 does; the message has the line number.
    """
    content = path.read_bytes().removeprefix(codecs.BOM_UTF8)
    bad = content.find(0)
    try:
        text = content.decode()
    except UnicodeDecodeError as error:
        bad = error.start
    if bad == -1:
        return text
    end = b"\n" if b"\n" in content else b"\r"
    number = content.count(end, 0, bad) + 1
    raise Refusal(f"{path}, line {number}: byte {content[bad]:#04x} is not UTF-8: convert the file to UTF-8")


def sentences_of(text: str, path: Path) -> list[list[str]]:
    """Returns the words of every line of a text.

    Lines end in a line feed, as on Unix or Windows. In a text without line feeds, lines end in a carriage return, as on
    the classic Mac OS.

    Args:
        path: the file, for error messages.
    Raises:
        Refusal: a line has no words; the message has the line number.
    """
    end = "\n" if "\n" in text else "\r"
    sentences = []
    for number, line in enumerate(text.removesuffix(end).split(end), start=1):
        words = unicodedata.normalize("NFC", line.translate(SEPARATORS)).split()
        if not words:
            what = "has only white space" if line.removesuffix("\r") else "is empty"
            raise Refusal(f"{path}, line {number} {what}: each line of a corpus file must hold a sentence")
        sentences.append(words)
    return sentences


def pairs_of(one: Path, other: Path, both: tuple[list[list[str]], list[list[str]]]) -> tuple[Pairs, int]:
    """Returns the sentence pairs of two files, without pairs that are too long, and the number of pairs left out.

    Raises:
        Refusal: the files have different numbers of lines, or no pair is left.
    """
    counts = tuple(map(len, both))
    if counts[0] != counts[1]:
        longer, shorter = (one, other) if counts[0] > counts[1] else (other, one)
        raise Refusal(
            f"{longer}, line {min(counts) + 1} has no counterpart: {shorter} has {min(counts):,} lines,"
            f" but {longer.name} has {max(counts):,}; give both the same number of lines"
        )
    kept = [pair for pair in zip(*both, strict=True) if max(map(len, pair)) <= MOST_TOKENS]
    if not kept:
        raise Refusal(
            f"{one} has no pair of sentences of at most {MOST_TOKENS} words: give a corpus of shorter sentences"
        )
    return ([pair[0] for pair in kept], [pair[1] for pair in kept]), counts[0] - len(kept)


def read(root: Path) -> Corpus:
    """Reads a whole corpus.

    Raises:
        Refusal: same as `find`, `decoded`, `sentences_of` and `pairs_of`.
    """
    return _read(root, tuple(file_version(path) for both in find(root).values() for path in both))


@functools.lru_cache(maxsize=1)
def _read(root: Path, _versions: tuple[Version, ...]) -> Corpus:
    pairs, too_long, rewritten = {}, {}, False
    for split, (one, other) in find(root).items():
        texts = decoded(one), decoded(other)
        usual = (unicodedata.is_normalized("NFC", text) and not UNUSUAL.search(text) for text in texts)
        rewritten = rewritten or not all(usual)
        both = sentences_of(texts[0], one), sentences_of(texts[1], other)
        pairs[split], too_long[split] = pairs_of(one, other, both)
    return Corpus(languages(root), pairs, too_long, rewritten)


def vocabulary(
    training: Sequence[Sequence[str]], others: Sequence[Sequence[str]], fewest: int
) -> tuple[list[str], int]:
    """Returns all words in the order of their numbers, and C, the number of tokens that a model knows.

    The words are in this order: <unk>; known words, the most frequent first; other training words, the most frequent
    first; words that occur in no training sentence. Words of equal frequency are in alphabetical order.
    """
    counts = Counter(word for sentence in training for word in sentence)
    counts.update(dict.fromkeys({word for sentence in others for word in sentence}, 0))
    counts.pop(UNKNOWN_WORD, None)
    ordered = sorted(counts, key=lambda word: (-counts[word], word))
    known = min(CLASSES - SPECIAL, sum(count >= max(1, fewest) for count in counts.values()))
    return [UNKNOWN_WORD, *ordered], known + SPECIAL


def unknown_share(modality: Modality, sentences: list[list[str]], most: int | None) -> float:
    """Returns the share of the sentences' words that a model does not know.

    Args:
        most: largest number of words that the model knows. If None, the modality's own number.
    """
    classes = modality.classes if most is None else modality.knowing(most).classes
    known = set(modality.words[1 : classes - SPECIAL + 1])
    words = [word for sentence in sentences for word in sentence]
    return sum(word not in known for word in words) / len(words)


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
    check=find,
    digest=digest,
    former_digest=_digest,
    examples=lambda root: len(read(root).pairs["train"][0]),
    convert=lambda root: read(root).arrays,
    made_of=lambda root: read(root).modalities,
    facts=lambda root, known: read(root).facts(known),
)
