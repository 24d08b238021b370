"""Everyday sentences, parallel in several languages: the text of the embedded corpus.

The sentences are ours, built from readable data files in `phrasebook_data/`: `concepts.yaml`
(concepts in semantic classes) and `frames.yaml` (sentence frames with typed slots) know no
language; each `xx.yaml` says how language xx words every concept and every frame. Adding a
language is adding a file. docs/phrasebook.md describes the format.

    python -m unitweave.corpus.embedded.phrasebook --count
    python -m unitweave.corpus.embedded.phrasebook --sample 20 --language fr
    python -m unitweave.corpus.embedded.phrasebook --verify
"""

from __future__ import annotations

import argparse
import random
import re
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from importlib import resources
from itertools import combinations, product
from math import prod

import yaml

from unitweave.core.errors import InputError

PIVOT = "en"
MIN_WORDS, MAX_WORDS = 3, 12
_REFERENCE = re.compile(r"\{(\w+)((?:\.\w+)*)(?:@(\w+))?\}")


@dataclass(frozen=True)
class Sentence:
    """One meaning, worded in English and in other languages."""

    key: str  # stable and unique: frame id and fillers, "dish_is:obj=soup,deg=very,adj=hot"
    frame: str
    topic: str
    fillers: tuple[str, ...]  # the concept id in each slot, in the frame's order
    text: dict[str, str]  # language code -> sentence; "en" is always there


@dataclass(frozen=True)
class Frame:
    """A sentence frame: the concepts that each slot may hold."""

    name: str
    topic: str
    wording: str  # the name under which the language files word it, mostly its own
    slots: tuple[str, ...]
    choices: tuple[tuple[str, ...], ...]  # per slot
    apart: tuple[int, int] | None  # two slots that must not hold clashing concepts

    def key(self, fillers: Sequence[str]) -> str:
        """The stable name of the sentence that these fillers make."""
        return f"{self.name}:" + ",".join(f"{s}={f}" for s, f in zip(self.slots, fillers, strict=True))


# --- reading the data files ---


def _read(name: str) -> dict:
    path = resources.files("unitweave.corpus.embedded") / "phrasebook_data" / name
    return yaml.safe_load(path.read_text(encoding="utf-8"))


@cache
def languages() -> list[str]:
    """Codes of the source languages that have a file, sorted; English, the pivot, is not listed."""
    folder = resources.files("unitweave.corpus.embedded") / "phrasebook_data"
    names = (entry.name for entry in folder.iterdir())
    return sorted(n[:2] for n in names if re.fullmatch(r"[a-z]{2}\.yaml", n) and n[:2] != PIVOT)


@cache
def classes() -> dict[str, tuple[str, ...]]:
    """Semantic class -> its concept ids, with the classes it includes written out."""
    raw: dict[str, list[str]] = _read("concepts.yaml")["classes"]

    def members(name: str) -> list[str]:
        return [c for item in raw[name] for c in (members(item[1:]) if item[0] == "+" else [item])]

    return {name: tuple(dict.fromkeys(members(name))) for name in raw}


@cache
def _clashes() -> frozenset[tuple[str, str]]:
    pairs = _read("concepts.yaml")["clash"]
    return frozenset((a, b) for pair in pairs for a, b in (pair, pair[::-1]))


@cache
def frames() -> tuple[Frame, ...]:
    """All frames, in the order of frames.yaml."""
    made = []
    for name, raw in _read("frames.yaml").items():
        slots = tuple(raw["slots"])
        choices = tuple(classes()[raw["slots"][s]] for s in slots)
        apart = None
        if "distinct" in raw:
            one, other = raw["distinct"]
            apart = (slots.index(one), slots.index(other))
        made.append(Frame(name, raw["topic"], raw.get("wording", name), slots, choices, apart))
    return tuple(made)


class Wording:
    """How one language words concepts and frames: the content of its xx.yaml."""

    def __init__(self, code: str) -> None:
        if not re.fullmatch(r"[a-z]{2}", code) or code not in [*languages(), PIVOT]:
            raise InputError(f"the phrasebook has no language {code!r}; it has {PIVOT}, {', '.join(languages())}")
        raw = _read(f"{code}.yaml")
        self.code = code
        self.paradigms: dict[str, dict[str, str]] = raw["paradigms"]
        self.concepts = {str(k): self._forms(v) for k, v in raw["concepts"].items()}
        self.words = {str(k): self._forms(v) for k, v in raw["words"].items()}
        self.patterns: dict[str, str] = raw["frames"]
        self.rules = [(re.compile(find), put) for find, put in raw["rules"]]

    def _forms(self, entry: str | dict | list) -> dict[str, str]:
        """A word's table of forms, keyed "", "def", "past.3s" and so on.

        An entry is the one form there is, or the forms themselves, or a paradigm with its
        arguments, behind which a mapping may correct single forms.
        """
        if isinstance(entry, str):
            return {"": entry}
        if isinstance(entry, dict):
            return entry
        name, *arguments = entry
        corrections = arguments.pop() if isinstance(arguments[-1], dict) else {}
        return {k: t.format(*arguments) for k, t in self.paradigms[name].items()} | corrections

    def sentence(self, frame: Frame, fillers: Sequence[str]) -> str:
        """The sentence that `fillers` make in `frame`, cased and punctuated."""
        held = {slot: self.concepts[filler] for slot, filler in zip(frame.slots, fillers, strict=True)}

        def form(reference: re.Match[str]) -> str:
            name, features, agrees = reference.groups()
            table = held.get(name) or self.words[name]
            if agrees is None:
                return table[features[1:]]
            for feature in ("p", "g"):  # agree in person and number, or else in gender and number
                found = table.get(f"{features}.{held[agrees].get(feature)}"[1:])
                if found is not None:
                    return found
            raise KeyError(f"{name}{features} agreeing with {held[agrees]}")

        try:
            text = _REFERENCE.sub(form, self.patterns[frame.wording])
        except KeyError as error:
            raise InputError(f"{self.code}.yaml, {frame.key(fillers)}: no form {error}") from error
        text = re.sub(r" +(?=[ ,.?!])", "", text).strip()
        for find, put in self.rules:
            text = find.sub(put, text)
        first = next(i for i, c in enumerate(text) if c.isalpha())
        return text[:first] + text[first].upper() + text[first + 1 :]


@cache
def wording(code: str) -> Wording:
    """The wording of a language, read once. Raises InputError where there is no such file."""
    return Wording(code)


# --- counting and enumerating ---


def _apart(frame: Frame, fillers: Sequence[str]) -> bool:
    if frame.apart is None:
        return True
    a, b = (fillers[i] for i in frame.apart)
    return a != b and (a, b) not in _clashes()


def _size(frame: Frame) -> int:
    total = prod(map(len, frame.choices))
    if frame.apart is None:
        return total
    pairs = product(*(frame.choices[i] for i in frame.apart))
    good = sum(a != b and (a, b) not in _clashes() for a, b in pairs)
    return total * good // prod(len(frame.choices[i]) for i in frame.apart)


def topics() -> list[str]:
    """What the sentences are about, in the order of frames.yaml."""
    return list(dict.fromkeys(frame.topic for frame in frames()))


def _frames_on(chosen: Sequence[str] | None) -> list[Frame]:
    """The frames of some topics, or of all. Raises InputError for a topic that there is not."""
    for topic in chosen or []:
        if topic not in topics():
            raise InputError(f"the phrasebook has no topic {topic!r}; it has {', '.join(topics())}")
    return [frame for frame in frames() if chosen is None or frame.topic in chosen]


def count(topics: Sequence[str] | None = None) -> int:
    """The exact number of different sentences, in all topics or in some."""
    return sum(map(_size, _frames_on(topics)))


def _every(frame: Frame) -> Iterator[tuple[str, ...]]:
    return (fillers for fillers in product(*frame.choices) if _apart(frame, fillers))


# --- drawing ---


def _quotas(number: int, sizes: list[int]) -> list[int]:
    """Share `number` evenly among bins, none above its size."""
    quotas = [0] * len(sizes)
    while (left := number - sum(quotas)) > 0:
        open_bins = [i for i, size in enumerate(sizes) if quotas[i] < size]
        share, extra = divmod(left, len(open_bins))
        for rank, i in enumerate(open_bins):
            quotas[i] = min(sizes[i], quotas[i] + share + (rank < extra))
    return quotas


def _fill(frame: Frame, number: int, rng: random.Random) -> list[tuple[str, ...]]:
    """`number` different fillings of a frame, in which every slot deals its concepts evenly."""
    if number * 2 >= _size(frame):
        return rng.sample(list(_every(frame)), number)
    decks: list[list[str]] = [[] for _ in frame.choices]
    contents: dict[tuple[str, ...], None] = {}
    while len(contents) < number:
        for deck, choice in zip(decks, frame.choices, strict=True):
            if not deck:
                deck.extend(rng.sample(choice, len(choice)))
        fillers = tuple(deck.pop() for deck in decks)
        if _apart(frame, fillers):
            contents[fillers] = None
    return list(contents)


def draw(number: int, languages: Sequence[str], seed: int, topics: Sequence[str] | None = None) -> list[Sentence]:
    """Draw `number` different sentences, spread evenly over frames and over the words in them.

    `languages` are the languages to word them in; English always comes along. `topics` are those to
    draw from, all by default. The same arguments give the same list. Raises InputError where there
    are fewer sentences than asked for, or where a language has no file or a topic no frame.
    """
    if not 0 <= number <= count(topics):
        raise InputError(f"the phrasebook has {count(topics)} such sentences (asked for {number})")
    codes = dict.fromkeys([PIVOT, *languages])
    wordings = [wording(code) for code in codes]
    rng = random.Random(seed)
    possible = _frames_on(topics)
    order = rng.sample(possible, len(possible))  # which frames get the odd ones out is drawn too
    quotas = _quotas(number, [_size(frame) for frame in order])
    chosen = [(frame, f) for frame, quota in zip(order, quotas, strict=True) for f in _fill(frame, quota, rng)]
    rng.shuffle(chosen)
    return [
        Sentence(frame.key(f), frame.name, frame.topic, f, {w.code: w.sentence(frame, f) for w in wordings})
        for frame, f in chosen
    ]


# --- splitting ---


@cache
def _function_words() -> frozenset[str]:
    return frozenset(classes()["pronoun"])


def content_pairs(sentence: Sentence) -> set[tuple[str, str]]:
    """The unordered pairs of content words (all fillers but the pronouns) in a sentence."""
    content = sorted({f for f in sentence.fillers if f not in _function_words()})
    return set(combinations(content, 2))


def split(sentences: Sequence[Sentence], dev: int, test: int, seed: int) -> dict[str, list[Sentence]]:
    """Split into "train", "dev" and "test", with word combinations that only test has.

    No English text and no text of another language is in two splits. At least half of the test
    sentences hold a pair of content words that no train sentence holds; every frame and every
    content word of dev and test is in train. Train is what is left, less the sentences that hold a
    held-out pair. Raises InputError where `sentences` are too few for that, or not different.
    """
    for code in {code for s in sentences for code in s.text}:
        text, times = Counter(s.text[code] for s in sentences if code in s.text).most_common(1)[0]
        if times > 1:
            raise InputError(f"cannot split: {text!r} ({code}) occurs more than once")
    rng = random.Random(seed)
    pool = rng.sample(list(sentences), len(sentences))
    uses = Counter(word for s in pool for word in {s.frame, *s.fillers})

    def expendable(group: Sequence[Sentence]) -> bool:
        """Whether train can lose the group and still hold each of its words and frames."""
        lost = Counter(word for s in group for word in {s.frame, *s.fillers})
        return all(uses[word] > n for word, n in lost.items())

    def take(group: Sequence[Sentence]) -> None:
        for s in group:
            uses.subtract({s.frame, *s.fillers})
            del left[s.key]

    left = {s.key: s for s in pool}
    holders: dict[tuple[str, str], list[str]] = defaultdict(list)
    for s in pool:
        for pair in sorted(content_pairs(s)):
            holders[pair].append(s.key)
    # A pair that few sentences hold costs train little; which of those is drawn by the shuffle.
    tested: list[Sentence] = []
    wanted = (test + 1) // 2
    for keys in sorted(holders.values(), key=len):
        if len(tested) >= wanted:
            break
        group = [left[k] for k in keys if k in left]
        if len(group) == len(keys) and expendable(group):
            take(group)
            tested += group[: wanted - len(tested)]
    if len(tested) < wanted:
        raise InputError(f"{len(pool)} sentences are too few to hold out word combinations for {test} in test")
    parts: dict[str, list[Sentence]] = {"train": [], "dev": [], "test": tested}
    for name, size in (("test", test), ("dev", dev)):
        for s in list(left.values()):
            if len(parts[name]) == size:
                break
            if expendable([s]):
                take([s])
                parts[name].append(s)
        if len(parts[name]) < size:
            raise InputError(f"{len(pool)} sentences are too few for dev {dev} and test {test}")
    parts["train"] = list(left.values())
    rng.shuffle(parts["test"])
    return parts


# --- the command ---


def verify(code: str) -> list[str]:
    """Word every sentence in a language and in English (minutes); what is wrong, one line each.

    Wrong is a sentence of fewer than 3 or more than 12 words, and two meanings worded alike.
    """
    problems = []
    seen: dict[int, str] = {}  # hash of the text -> key: the texts themselves would take gigabytes
    for frame in frames():
        for fillers in _every(frame):
            text, key = wording(code).sentence(frame, fillers), frame.key(fillers)
            if not MIN_WORDS <= len(text.split()) <= MAX_WORDS:
                problems.append(f"{code} {key}: {len(text.split())} words: {text}")
            if seen.setdefault(hash(text), key) != key:
                problems.append(f"{code} {key}: the same text as {seen[hash(text)]}: {text}")
    return problems


def main(arguments: Sequence[str] | None = None) -> int:
    """Count, sample or verify the phrasebook at the terminal."""
    parser = argparse.ArgumentParser(prog="python -m unitweave.corpus.embedded.phrasebook", description=main.__doc__)
    parser.add_argument("--count", action="store_true", help="the number of different sentences, by topic")
    parser.add_argument("--sample", type=int, metavar="N", help="print N sentences with their English")
    parser.add_argument("--verify", action="store_true", help="word every sentence and check it (minutes)")
    parser.add_argument("--language", help="language code; all of them by default")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args(arguments)
    codes = [options.language] if options.language else languages()
    if options.count:
        topics: Counter[str] = Counter()
        for frame in frames():
            topics[frame.topic] += _size(frame)
        print("\n".join(f"{n:>9}  {topic}" for topic, n in topics.most_common()))
        print(f"{count():>9}  sentences in {len(frames())} frames, {len(wording(PIVOT).concepts)} concepts")
    for s in draw(options.sample or 0, codes, options.seed):
        print("\n".join([s.text[PIVOT], *(f"    {s.text[code]}" for code in codes if code != PIVOT)]))
    problems = [p for code in [PIVOT, *codes] for p in verify(code)] if options.verify else []
    print(*problems, sep="\n", end="\n" if problems else "")
    return bool(problems)


if __name__ == "__main__":
    raise SystemExit(main())
