"""From rows and recordings to a manifest: every row is checked, and a row that is skipped is named with its reason."""

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from rich.table import Table

from unitweave.config.corpus import RowLimits
from unitweave.core.errors import InputError
from unitweave.core.files import atomic_path, json_digest, read_json_object, remove, remove_leftovers, write_json
from unitweave.core.manifest import FILE_NAME, SPLITS, Pair, read_manifest, read_metadata, write_manifest
from unitweave.core.progress import console, echo
from unitweave.core.stage import StageResult, reasons_line, versions
from unitweave.core.text import NORMALIZER, normalize, rules
from unitweave.corpus.checks import audio_problem, pace_problem, text_problem
from unitweave.corpus.recording_store import RecordingStore
from unitweave.corpus.tasks import describe_tasks

ABOUT = "corpus.json"
SKIPPED = "skipped.tsv"
MIN_USABLE_FRACTION = 0.5  # with less than this of a language left, something is wrong with the corpus as a whole


@dataclass(frozen=True)
class Side:
    """One side of a row: its recording's path below the corpus folder, its raw text, and whether it must have one."""

    language: str
    audio: str | None
    text: str | None
    needs_text: bool = True


@dataclass(frozen=True)
class Row:
    """One utterance pair as the corpus has it."""

    id: str
    split: str
    src: Side
    tgt: Side
    speaker: str = ""


@dataclass(frozen=True)
class Skipped:
    """A row that is left out. `reason` is one of a few sentences, `detail` what is particular about this row."""

    id: str
    language: str
    reason: str
    detail: str = ""


def open_corpus(folder: Path, kind: str, settings: Any) -> None:
    """Begin or go on with a corpus folder. Raises InputError when `folder` holds something else."""
    path = folder / ABOUT
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; --out names a folder")
    if path.exists():
        held = read_json_object(path).get("corpus")
        if held != kind:
            raise InputError(f"{folder}: holds a corpus made by 'unitweave corpus {held}'; choose another --out")
    elif folder.exists() and any(folder.iterdir()):
        raise InputError(f"{folder}: has files but no {ABOUT}, so it is not a corpus folder; choose another --out")
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise InputError(f"{folder}: could not be created ({error.strerror})") from None
    remove_leftovers(folder)
    # A manifest of an earlier call would pass for the result of this one if this one failed.
    remove(folder / FILE_NAME)
    write_json(path, {"corpus": kind, "status": "running", "settings": _plain(settings)})


def close_corpus(
    folder: Path,
    kind: str,
    settings: Any,
    rows: Iterable[Row],
    skipped: Sequence[Skipped],
    recordings: RecordingStore,
    limits: RowLimits,
    allow_skipped: bool,
) -> StageResult:
    """Check every row, write manifest.parquet, skipped.tsv and corpus.json, and print a summary.

    Raises InputError when nothing is left, or less than half of a language (unless `allow_skipped`);
    then there is a skipped.tsv and no manifest.
    """
    pairs: dict[str, Pair] = {}
    sources: list[tuple[str, str]] = []
    left_out = list(skipped)
    for row in rows:
        twice = Skipped(row.id, row.src.language, "duplicate id") if row.id in pairs else None
        checked = twice or _pair(folder, row, recordings, limits)
        if isinstance(checked, Pair):
            pairs[row.id] = checked
            paths = [side.audio for side in (row.src, row.tgt) if side.audio]
            sources += [(made.path, made.source) for path in paths if (made := recordings.get(path))]
        else:
            left_out.append(checked)
    kept = sorted(pairs.values(), key=lambda p: (p.src_lang, SPLITS.index(p.split), p.id))
    report_skipped(folder / SKIPPED, kept, left_out)
    _check_enough(folder, kept, left_out, allow_skipped)
    languages = sorted({code for p in kept for code in (p.src_lang, p.tgt_lang)})
    # Later stages look at the manifest alone: it has to change with the recordings, even where these last as long.
    metadata = {"corpus": kind, "recordings": json_digest(sorted(set(sources)))}
    write_manifest(folder, kept, metadata | normalization_metadata(languages))
    counts = count(kept) | {"skipped": len(left_out)}
    reasons = dict(Counter(s.reason for s in left_out).most_common())
    record = {"counts": counts, "skipped": reasons, "versions": versions()}
    write_json(folder / ABOUT, {"corpus": kind, "status": "done", "settings": _plain(settings)} | record)
    echo(f"corpus: {len(kept)} pairs in {folder / FILE_NAME}")
    echo(f"corpus: {describe_tasks(kept)}")
    if left_out:
        echo(f"skipped: {folder / SKIPPED}")
    return StageResult(counts, [{"id": s.id, "reason": s.reason} for s in left_out])


def import_manifest(folder: Path, source: Path) -> StageResult:
    """Import the manifest of a corpus folder into a run; the recordings stay where they are.

    Texts that another version normalized, or that were never normalized, are normalized again from the raw ones, so
    that training and scoring see the same.

    Raises:
        InputError: The manifest has no pairs, or recordings are missing.
    """
    pairs: Sequence[Pair] = read_manifest(source)
    metadata = read_metadata(source)
    if not pairs:
        raise InputError(f"{source}: the manifest has no pairs")
    recordings = [audio for pair in pairs for audio in (pair.src_audio, pair.tgt_audio) if audio]
    missing = [audio for audio in recordings if not Path(audio).is_file()]
    if missing:
        raise InputError(f"{source}: {len(missing)} of {len(recordings)} recordings are missing, first {missing[0]}")
    if metadata.get("normalizer") != NORMALIZER:
        echo(f"corpus: texts have the normalizer {metadata.get('normalizer', 'none')}; normalizing them again")
        pairs = [_renormalized(pair) for pair in pairs]
        metadata |= normalization_metadata({code for p in pairs for code in (p.src_lang, p.tgt_lang)})
    write_manifest(folder, pairs, metadata)
    record = read_json_object(source / ABOUT) if (source / ABOUT).exists() else {}
    left_out = record.get("skipped", {})
    if not isinstance(left_out, dict) or not all(isinstance(number, int) for number in left_out.values()):
        raise InputError(f"{source / ABOUT}: damaged ('skipped' must have a number for each reason)")
    echo(f"corpus: {len(pairs)} pairs of {source}")
    if left_out:
        echo(f"corpus: {sum(left_out.values())} rows were skipped when it was built: {reasons_line(left_out)}")
    return StageResult(count(pairs) | {"skipped": left_out})


def _renormalized(pair: Pair) -> Pair:
    def text(raw: str | None, normalized: str | None, language: str) -> str | None:
        return (normalize(raw or normalized or "", language)) or None

    return replace(
        pair,
        src_text=text(pair.src_text_raw, pair.src_text, pair.src_lang),
        tgt_text=text(pair.tgt_text_raw, pair.tgt_text, pair.tgt_lang),
    )


def normalization_metadata(languages: Iterable[str]) -> dict[str, str]:
    """What a manifest says about how its texts were normalized."""
    return {"normalizer": NORMALIZER, "normalization": json.dumps({code: rules(code) for code in sorted(languages)})}


def count(pairs: Sequence[Pair]) -> dict[str, Any]:
    """Pairs, by split, and hours."""
    return {
        "pairs": len(pairs),
        **{split: sum(p.split == split for p in pairs) for split in SPLITS},
        "source hours": round(sum(p.src_seconds for p in pairs) / 3600, 2),
        "target hours": round(sum(p.tgt_seconds for p in pairs) / 3600, 2),
    }


def _pair(folder: Path, row: Row, recordings: RecordingStore, limits: RowLimits) -> Pair | Skipped:
    """The manifest's row, or why there is none."""
    texts: dict[str, str | None] = {}
    seconds: dict[str, float] = {}
    for name, side in (("source", row.src), ("target", row.tgt)):
        problem = None
        made = recordings.get(side.audio) if side.audio else None
        seconds[name] = made.seconds if made else 0.0
        texts[name] = normalize(side.text, side.language) if side.text else None
        if side.audio and made is None:
            problem = ("no recording", "")
        elif made and made.problem:
            problem = (made.problem, made.detail)
        elif made:
            problem = audio_problem(made.seconds, limits)
        if problem is None and side.text is not None and (side.needs_text or side.text.strip()):
            problem = text_problem(side.text, texts[name] or "", side.language)
        elif problem is None and side.needs_text and side.text is None:
            problem = ("no text", "")
        if problem is None and made and texts[name]:
            problem = pace_problem(texts[name] or "", made.seconds, limits)
        if problem:
            return Skipped(row.id, row.src.language, f"{name}: {problem[0]}", problem[1])
    if not row.src.audio and not row.tgt.audio:
        return Skipped(row.id, row.src.language, "neither side has a recording")

    def absolute(audio: str | None) -> str | None:
        return str(folder / audio) if audio else None

    return Pair(
        id=row.id,
        split=row.split,
        src_lang=row.src.language,
        tgt_lang=row.tgt.language,
        src_audio=absolute(row.src.audio),
        tgt_audio=absolute(row.tgt.audio),
        src_text=texts["source"] or None,
        tgt_text=texts["target"] or None,
        src_text_raw=row.src.text or None,
        tgt_text_raw=row.tgt.text or None,
        speaker=row.speaker.encode(errors="replace").decode(),
        src_seconds=seconds["source"],
        tgt_seconds=seconds["target"],
    )


def _check_enough(folder: Path, kept: Sequence[Pair], skipped: Sequence[Skipped], allow_skipped: bool) -> None:
    have, lost = Counter(p.src_lang for p in kept), Counter(s.language for s in skipped)
    for language in sorted(have.keys() | lost.keys()):
        total = have[language] + lost[language]
        if have[language] and (allow_skipped or have[language] >= MIN_USABLE_FRACTION * total):
            continue
        if have and allow_skipped:
            continue
        reason, times = Counter(s.reason for s in skipped if s.language == language).most_common(1)[0]
        example = next((s.detail for s in skipped if (s.language, s.reason) == (language, reason)), "")
        raise InputError(
            f"{folder}: only {have[language]} of {total} pairs of {language or 'the corpus'} are usable; main reason "
            f"({times} times): {reason}{f' ({example})' if example else ''}; see {folder / SKIPPED}"
            + ("" if not have[language] else "; use --allow-skipped to continue with the rest")
        )
    if not kept:
        raise InputError(f"{folder}: the corpus has no rows")


def report_skipped(path: Path, kept: Sequence[Pair], skipped: Sequence[Skipped]) -> None:
    """Write skipped.tsv, and show how many rows were skipped for each reason."""
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", errors="replace") as file:
        file.write("id\tlanguage\treason\tdetail\n")
        for s in sorted(skipped, key=lambda s: (s.language, s.id, s.reason)):
            file.write("\t".join(" ".join(x.split()) for x in (s.id, s.language, s.reason, s.detail)) + "\n")
    if not skipped:
        return
    table = Table("language", "reason", "rows", title=f"{len(skipped)} rows skipped, {len(kept)} kept")
    for (language, reason), times in Counter((s.language, s.reason) for s in skipped).most_common():
        table.add_row(language, reason, str(times))
    console.print(table)


def _plain(settings: Any) -> Any:
    return json.loads(json.dumps(asdict(settings), default=str))
