"""Sentences of two languages as data: reading, storing and showing a corpus, and refused files."""

from __future__ import annotations

import dataclasses
import hashlib
import unicodedata
from collections import Counter
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
import torch

from mvae.data import (
    facts_about,
    fingerprint,
    former_fingerprint,
    load,
    load_converted,
    modalities_of,
    training_examples,
)
from mvae.data.dataset import SPLITS
from mvae.data.examples import Dataset
from mvae.data.sentences.sentences import Sentences, sentence_of, trimmed
from mvae.data.sentences.toy_translation import COUNTS, NOUNS, PLACES, QUALITIES, VERBS, corpus
from mvae.data.sentences.translation import FEWEST, MOST_TOKENS, decoded, digest, sentences_of, vocabulary
from mvae.refusal import Refusal
from tests.corpora import PAIRS, stored, write_corpus


def drawn(lengths: list[int], words: int = 9, classes: int = 8) -> Sentences:
    """Sentences of these lengths with random words from 0 to `words`; 5 words are known."""
    all_ = np.random.default_rng(0).integers(0, words, sum(lengths)).tolist()
    return stored([[all_.pop() for _ in range(length)] for length in lengths], classes)


def read_sentences(path: Path) -> list[list[str]]:
    return sentences_of(decoded(path), path)


def sentences(data: Dataset, split: str, m: int) -> list[str]:
    value = getattr(data, split).sentences[m]
    return [sentence_of(value.words(i), data.modalities[m].words) for i in range(len(value))]


def test_a_batch_is_as_wide_as_its_longest_sentence_and_rare_words_are_unknown() -> None:
    stored = drawn([3, 0, 5, 1])
    for index in ([0, 1], [3, 2, 0], [1], [1, 1], []):
        taken = stored.take(torch.tensor(index, dtype=torch.int64))
        expected = [[word if word < 6 else 0 for word in stored.words(i)] for i in index]
        width = max((len(row) for row in expected), default=0) + 1
        assert taken.shape == (len(index), width) and taken.dtype == torch.int64
        assert taken.tolist() == [row + [6] * (width - len(row)) for row in expected]


def test_consecutive_sentences_are_read_like_all_sentences() -> None:
    stored = drawn([3, 0, 5, 1, 2])
    part = stored[1:4]
    assert (len(part), part.lengths.tolist()) == (3, [1, 6, 2])
    assert torch.equal(part.take(torch.arange(3)), stored.take(torch.tensor([1, 2, 3])))
    assert len(stored[:0]) == 0


def test_unknown_words_are_counted_per_sentence_also_for_a_part_of_the_file() -> None:
    stored = drawn([3, 0, 5, 1, 4], classes=6)
    expected = [sum(word == 0 or word > 3 for word in stored.words(i)) for i in range(5)]
    assert stored.unknown.tolist() == expected and any(expected)
    assert stored[1:4].unknown.tolist() == expected[1:4]
    assert stored[:0].unknown.tolist() == []


def test_a_smaller_vocabulary_only_turns_words_into_unknown_ones(cache: Path) -> None:
    data = load("toy_translation", cache=cache)
    few = data.knowing(4)
    assert [modality.classes for modality in few.modalities] == [7, 7]
    index = torch.arange(50)
    for m in (0, 1):
        whole, seen = data.train.take(m, index), few.train.take(m, index)
        stop = data.modalities[m].classes - 2
        assert torch.equal(seen, torch.where(whole == stop, 5, torch.where(whole > 4, 0, whole)))
        assert sentences(few, "test", m) == sentences(data, "test", m)
    assert data.knowing(None) is data
    assert data.knowing(10**6).modalities == data.modalities


def test_columns_in_which_all_rows_have_ended_are_cut_off_except_one() -> None:
    rows = torch.tensor([[1, 2, 6, 6, 6], [1, 6, 6, 6, 6]])
    assert torch.equal(trimmed(rows, 8), rows[:, :3])
    assert trimmed(torch.full((2, 4), 6), 8).shape == (2, 1)
    assert trimmed(rows[:0], 8).shape == (0, 1)


def test_words_are_numbered_by_frequency_then_alphabetically_and_frequent_ones_are_known() -> None:
    training = [["b", "a", "a"], ["c", "b", "a"], ["d", "c", "e"]]
    words, classes = vocabulary(training, [["z", "a"], ["<unk>", "y"]], fewest=2)
    assert words == ["<unk>", "a", "b", "c", "d", "e", "y", "z"]
    assert classes == 3 + 3


def test_a_corpus_is_read_back_word_by_word_from_its_arrow_files(tmp_path: Path, cache: Path) -> None:
    test = [("an unseen cat", "mio  ĉapo"), PAIRS[0]]
    root = write_corpus(tmp_path / "corpus", test=test)
    data = load("translation", root, cache)
    assert [modality.name for modality in data.modalities] == ["xx", "yy"]
    assert sentences(data, "train", 0) == [pair[0] for pair in PAIRS * 6]
    assert sentences(data, "test", 1) == ["mio ĉapo", "mio vid vuf"]
    again = load_converted("translation", data.fingerprint, cache)
    assert again is not None and again.modalities == data.modalities
    counts = Counter(word for pair in PAIRS * 6 for word in pair[0].split())
    known = data.modalities[0].words[1 : data.modalities[0].classes - 2]
    assert set(known) == {word for word, count in counts.items() if count >= FEWEST}
    unseen = data.test.take(0, torch.tensor([0]))[0].tolist()
    assert unseen == [0, 0, known.index("cat") + 1, data.modalities[0].classes - 2]


def test_sentences_are_a_memory_mapped_arrow_list_with_offsets(tmp_path: Path, cache: Path) -> None:
    data = load("translation", write_corpus(tmp_path / "corpus"), cache)
    path = cache / f"translation-{data.fingerprint[:16]}" / "train.arrow"
    with pa.memory_map(str(path)) as mapped:
        table = pa.ipc.open_file(mapped).read_all()
        assert table.schema.field("xx").type == pa.large_list(pa.int32())
        assert [len(row) for row in table["xx"].to_pylist()] == [len(pair[0].split()) for pair in PAIRS * 6]


def test_a_damaged_file_of_sentences_is_converted_again(tmp_path: Path, cache: Path) -> None:
    root = write_corpus(tmp_path / "corpus")
    before = load("translation", root, cache)
    folder = cache / f"translation-{before.fingerprint[:16]}"
    (folder / "manifest.json").write_text("{}", encoding="utf-8")
    after = load("translation", root, cache)
    assert sentences(after, "train", 1) == sentences(before, "train", 1)


def test_a_corpus_is_found_in_the_data_root_or_its_en_vi_folder_with_one_fingerprint(tmp_path: Path) -> None:
    write_corpus(tmp_path / "root" / "en-vi", suffixes=("en", "vi"))
    write_corpus(tmp_path / "plain", suffixes=("en", "vi"))
    write_corpus(tmp_path / "named", suffixes=("en", "fr"))
    marks = [fingerprint("translation", tmp_path / name) for name in ("root", "plain", "named")]
    assert marks[0] == marks[1] != marks[2]
    assert [modality.name for modality in modalities_of("translation", tmp_path / "named")] == ["en", "fr"]
    write_corpus(tmp_path / "plain", [*PAIRS, ("more", "plu")], suffixes=("en", "vi"))
    assert fingerprint("translation", tmp_path / "plain") != marks[0]


def test_the_former_fingerprint_of_a_corpus_differs_only_if_its_words_are_normalised(tmp_path: Path) -> None:
    plain = write_corpus(tmp_path / "plain")
    assert former_fingerprint("translation", plain) == fingerprint("translation", plain)
    composed = write_corpus(tmp_path / "composed", [*PAIRS, ("caf\N{LATIN SMALL LETTER E WITH ACUTE}", "mio")])
    decomposed = write_corpus(tmp_path / "decomposed", [*PAIRS, ("cafe\N{COMBINING ACUTE ACCENT}", "mio")])
    assert former_fingerprint("translation", composed) == fingerprint("translation", composed)
    assert former_fingerprint("translation", decomposed) != fingerprint("translation", decomposed)


def test_pairs_with_a_sentence_of_more_than_70_words_are_skipped_and_counted(tmp_path: Path, cache: Path) -> None:
    longest, too_long = " ".join(["cat"] * MOST_TOKENS), " ".join(["cat"] * (MOST_TOKENS + 1))
    train = [*PAIRS, ("short", too_long), (longest, longest), (too_long, "short")]
    root = write_corpus(tmp_path / "corpus", train)
    data = load("translation", root, cache)
    assert sentences(data, "train", 0) == [*(pair[0] for pair in PAIRS), longest]
    assert training_examples("translation", root) == len(data.train) == 5
    [said, *_] = facts_about("translation", root)
    assert said.startswith("translation: train has 5 pairs, 2 left out because a sentence has more than 70 words; ")


def test_the_share_of_unknown_words_is_reported_per_part_and_language(tmp_path: Path, cache: Path) -> None:
    test = [("the unseen cat", "mio nova nova vid"), ("the", "mio")]
    root = write_corpus(tmp_path / "corpus", test=test)
    *_, of_test = facts_about("translation", root)
    assert of_test.endswith("share of <unk>: xx 25.0%, yy 40.0%")
    *_, of_test = facts_about("translation", root, 1)
    assert of_test.endswith("share of <unk>: xx 75.0%, yy 60.0%"), "each language must have one known word"
    assert all(line.endswith("share of <unk>: here 0.0%, there 0.0%") for line in facts_about("toy_translation"))


def rewritten(root: Path, name: str, change: Callable[[str], str]) -> None:
    """Rewrites a file of a corpus."""
    (root / name).write_text(change((root / name).read_text(encoding="utf-8")), encoding="utf-8")


VIETNAMESE = [("the cat", "tiếng Việt"), ("a dog sees", "nhập từ"), ("the cat sees", "tiếng từ")]

SAME_WORDS: dict[str, Callable[[str], str]] = {
    "decomposed letters": lambda text: unicodedata.normalize("NFD", text),
    "no-break spaces": lambda text: text.replace(" ", "\u00a0"),
    "ideographic spaces": lambda text: text.replace(" ", "\u3000"),
    "narrow no-break spaces before line ends": lambda text: text.replace("\n", "\u202f\n"),
    "line separators that end no line": lambda text: text.replace(" ", "\u2028"),
    "soft hyphens": lambda text: "".join(
        one + "\u00ad" * (one.isalpha() and two.isalpha()) for one, two in pairwise(f"{text}\n")
    ),
    "word joiners": lambda text: text.replace("\n", "\u2060\n"),
    "zero width spaces": lambda text: text.replace(" ", "\u200b"),
    "byte order marks of joined files": lambda text: text.replace("\n", "\n\ufeff").removesuffix("\ufeff"),
    "tabs": lambda text: text.replace(" ", "\t"),
    "line ends of Windows": lambda text: text.replace("\n", "\r\n"),
    "line ends of the classic Mac OS": lambda text: text.replace("\n", "\r"),
}
AS_BEFORE = ("tabs", "line ends of Windows")
"""Spellings that earlier releases read in the same way. Corpora with them keep their digest."""


@pytest.mark.parametrize("spelled", SAME_WORDS)
def test_words_do_not_depend_on_the_encoding_of_letters_spaces_and_line_ends(spelled: str, tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "corpus", VIETNAMESE * 5, test=VIETNAMESE)
    expected, shares = read_sentences(root / "test.yy"), facts_about("translation", root)
    for name in ("test.xx", "test.yy"):
        rewritten(root, name, lambda text: SAME_WORDS[spelled](text))
    assert (root / "test.yy").read_bytes() != "".join(f"{pair[1]}\n" for pair in VIETNAMESE).encode()
    assert read_sentences(root / "test.yy") == expected
    assert facts_about("translation", root) == shares, "no word of the test part becomes unknown"


@pytest.mark.parametrize("spelled", SAME_WORDS)
def test_a_corpus_keeps_its_digest_unless_its_words_are_read_differently(spelled: str, tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "corpus", VIETNAMESE * 5, test=VIETNAMESE)
    rewritten(root, "test.yy", lambda text: SAME_WORDS[spelled](text))
    files = [root / f"{stem}.{suffix}" for stem in ("train", "valid", "test") for suffix in ("xx", "yy")]
    contents = [hashlib.sha256(path.read_bytes()).hexdigest() for path in files]
    before = hashlib.sha256(" ".join(["xx", "yy", *contents]).encode()).hexdigest()
    assert (digest(root) == before) == (spelled in AS_BEFORE)


@pytest.mark.real_data
def test_the_english_vietnamese_corpus_keeps_the_fingerprint_of_its_results(real_data: Path) -> None:
    if not (real_data / "en-vi").is_dir():
        pytest.skip("no corpus en-vi")
    assert fingerprint("translation", real_data) == "e7ef9f8d773bdbcffe04c2231876068b2c214f04ae9725803c62b736e4e42771"


def test_windows_line_ends_tabs_and_a_missing_final_newline_are_accepted(tmp_path: Path) -> None:
    path = tmp_path / "file.en"
    path.write_bytes(b"the\tcat \r\n sees  a dog")
    assert read_sentences(path) == [["the", "cat"], ["sees", "a", "dog"]]
    path.write_bytes("\ufeffdie Katze\n".encode())
    assert read_sentences(path) == [["die", "Katze"]], "a byte order mark is no part of the first word"
    path.write_bytes(b"a \x07 b\rc\nd\n")
    assert read_sentences(path) == [["a", "\x07", "b", "c"], ["d"]], "next to other line ends, a CR is white space"


BAD = {
    "an empty line": (
        "valid.xx",
        b"the cat\n\na dog\nthe dog\n",
        "valid.xx, line 2 is empty: each line of a corpus file",
    ),
    "a line of blanks": (
        "test.yy",
        b"mio\nvid\nvuf\n \t\n",
        "test.yy, line 4 has only white space: each line of a corpus file",
    ),
    "no-break spaces alone": ("test.yy", "mio\n\u00a0\u00a0\nvuf\nvid\n".encode(), "line 2 has only white space: each"),
    "no width at all": ("test.yy", "mio\nvid\n\u200b\nvid\n".encode(), "test.yy, line 3 has only white space"),
    "a blank last line": ("test.yy", b"mio\nvid\nvuf\nmio\n\n", "test.yy, line 5 is empty"),
    "a blank last line of Windows": ("test.yy", b"mio\r\nvid\r\nvuf\r\nmio\r\n\r\n", "test.yy, line 5 is empty"),
    "another encoding": ("train.yy", "mio\nĉapo\n".encode("iso8859-3"), "train.yy, line 2: byte 0xe6 is not UTF-8"),
    "UTF-16": ("test.xx", "the cat\n".encode("utf-16"), "test.xx, line 1: byte 0xff is not UTF-8"),
    "UTF-16 without a mark": ("test.xx", "the cat\na\n".encode("utf-16-le"), "test.xx, line 1: byte 0x00 is not UTF-8"),
    "another encoding with CR": ("train.yy", "mio\rĉapo\r".encode("iso8859-3"), "train.yy, line 2: byte 0xe6 is no"),
    "too many lines": ("test.xx", b"a\nb\nc\nd\ne\nf\n", "test.xx, line 5 has no counterpart: "),
    "too few lines": ("train.yy", b"mio\nvid\n", "train.xx, line 3 has no counterpart: "),
    "an empty file": ("valid.yy", b"", "valid.yy, line 1 is empty"),
}


@pytest.mark.parametrize("what", BAD)
def test_an_unreadable_corpus_file_is_refused_with_its_name_and_line_number(
    what: str, tmp_path: Path, cache: Path
) -> None:
    name, content, said = BAD[what]
    root = write_corpus(tmp_path / "corpus")
    (root / name).write_bytes(content)
    with pytest.raises(Refusal) as refusal:
        load("translation", root, cache)
    line = str(refusal.value)
    assert said in line and "\n" not in line and line.startswith(str(root))


def test_a_folder_without_a_corpus_is_refused_with_the_expected_files(tmp_path: Path) -> None:
    (tmp_path / "nothing").mkdir()
    one, three = write_corpus(tmp_path / "one"), write_corpus(tmp_path / "three")
    (one / "train.yy").unlink()
    (three / "train.zz").write_text("a\n", encoding="utf-8")
    kept = write_corpus(tmp_path / "kept", suffixes=("en", "vi"))
    (kept / "train.en.bak").write_text("a\n", encoding="utf-8")
    missing = write_corpus(tmp_path / "missing")
    (missing / "valid.yy").unlink()
    too_long = write_corpus(tmp_path / "long", test=[("a " * 80, "b")])
    for root, said in (
        (tmp_path / "nothing", "en-vi holds no corpus: put train.A, train.B, valid.A"),
        (one, "one has train.xx: put"),
        (three, "three has train.xx, train.yy, train.zz: put"),
        (kept, "kept has train.en, train.en.bak, train.vi: put"),
        (missing, "valid.yy is missing: a corpus needs train.A"),
        (too_long, "test.xx has no pair of sentences of at most 70 words"),
    ):
        with pytest.raises(Refusal, match=r".") as refusal:
            load("translation", root)
        assert said in str(refusal.value) and "\n" not in str(refusal.value)


def test_a_corpus_too_small_for_any_known_word_is_refused(tmp_path: Path) -> None:
    root = write_corpus(tmp_path / "corpus", train=[("the cat", "mio"), ("a dog", "vid")])
    with pytest.raises(
        Refusal, match=r"^no word in train\.xx occurs 5 times, so the vocabulary would be empty: give a larger"
    ):
        load("translation", root)


def test_the_toy_corpus_has_the_same_meaning_in_both_languages(cache: Path) -> None:
    data = load("toy_translation", cache=cache)
    assert {split: len(getattr(data, split)) for split in SPLITS} == COUNTS
    of_idea = {**NOUNS, **VERBS, **QUALITIES, **PLACES}
    for here, there in zip(sentences(data, "train", 0), sentences(data, "train", 1), strict=True):
        ideas = Counter(of_idea[word] for word in here.split() if word in of_idea)
        assert ideas == Counter(word for word in there.split() if word in of_idea.values())
    assert corpus().languages == tuple(modality.name for modality in data.modalities)
    assert all(modality.classes == len(modality.words) + 2 for modality in data.modalities), "all words are known"


def test_the_toy_corpus_has_the_same_bytes_everywhere(cache: Path) -> None:
    data = load("toy_translation", cache=cache)
    assert sentences(data, "train", 0)[:2] == FIRST[0] and sentences(data, "train", 1)[:2] == FIRST[1]
    assert data.fingerprint == fingerprint("toy_translation")


FIRST = (
    ["the quiet farmer sees a quiet queen .", "the small bird hears a old fish in the forest ."],
    ["gart kalm rena kalm vid .", "silv ne tui piko olo vex audi ."],
)


def test_a_sentence_modality_round_trips_through_the_manifest(cache: Path) -> None:
    data = load("toy_translation", cache=cache)
    assert dataclasses.asdict(data.modalities[0])["words"][0] == "<unk>"
    assert all(modality.sentences for modality in data.modalities)
