"""The score stage: the systems of a run, their ceilings, and whether they differ."""

import json
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unitweave.core.audio import read_audio, write_audio
from unitweave.core.errors import InputError
from unitweave.core.files import digest_of, read_json, write_json, write_text
from unitweave.core.layout import RunLayout
from unitweave.core.manifest import Pair, read_manifest
from unitweave.core.progress import meter, say
from unitweave.core.stage import StageResult
from unitweave.metrics import scores as metrics
from unitweave.score.asr.recognizers import Recognizer, load_recognizer
from unitweave.score.asr.transcripts import Heard, Speech, hear, read_lines
from unitweave.score.mos import load_predictors
from unitweave.score.rows import References, Written, score_by_language, score_row
from unitweave.score.table import print_table as print_table
from unitweave.training.devices import check_device
from unitweave.units.runs import deduplicate
from unitweave.units.table import UnitRow, read_units

REFERENCE_SPEECH = "reference speech"
RESYNTHESIS = "resynthesized units"


@dataclass
class ScoreSettings:
    """How speech is scored."""

    recognizer: str = "moonshine"  # "moonshine" (offline), "fairseq" or "whisper": recognizer with its normalization
    model: str = ""  # folder or hub name in place of the recognizer's own checkpoint
    device: str = "auto"  # where a hub recognizer and UTMOS run: "auto", "cpu", "cuda", ...
    bootstrap_samples: int = 1000  # resamples for the 95 % intervals and the paired bootstrap; 0 or 1: no intervals
    randomisation_trials: int = 10000  # of the approximate randomisation test; 0: left out
    mos: tuple[str, ...] = ("dnsmos",)  # MOS predictors, of "dnsmos" and "utmos"; one that is missing is left out
    mos_utterances: int = 20  # how many utterances are rated, evenly spread over the test set; 0: all of them
    ceilings: bool = True  # recognize the reference speech and the resynthesized reference units as well
    examples: int = 8  # utterances that are kept as audio for the report


def check_settings(settings: ScoreSettings) -> None:
    """Raise InputError when a setting is impossible."""
    from unitweave.score.asr.recognizers import DEFAULT_MODELS
    from unitweave.score.mos import PREDICTORS

    if settings.recognizer not in DEFAULT_MODELS:
        raise InputError(f"score.recognizer {settings.recognizer!r} is none of {', '.join(DEFAULT_MODELS)}")
    for name in settings.mos:
        if name not in PREDICTORS:
            raise InputError(f"score.mos: {name!r} is none of {', '.join(PREDICTORS)}")
    for name in ("bootstrap_samples", "randomisation_trials", "mos_utterances", "examples"):
        if getattr(settings, name) < 0:
            raise InputError(f"score.{name} {getattr(settings, name)} must not be negative")


def scored_by(settings: ScoreSettings) -> list[str]:
    """What scores depend on beside settings and speech: with another of these they are made again."""
    from unitweave.score.asr.recognizers import identity
    from unitweave.score.mos import installed

    return [identity(settings.recognizer, settings.model), *installed(settings.mos), str(metrics.bootstrap_seed())]


def score_run(
    folder: Path, settings: ScoreSettings, run: Path, systems: Sequence[str], trained_on: Path | None = None
) -> StageResult:
    """Score RUN/translate/<system> for each of `systems`; write `folder`/scores.json and utterances.jsonl.

    trained_on  the corpus folder that the systems were trained on, where that is not RUN/corpus
    Goes on where an interrupted call with the same settings stopped. Raises InputError when a
    system's outputs are missing, incomplete, or unlike the other systems' or the test split.
    """
    check_settings(settings)
    check_device(settings.device, "score.device")
    if not systems:
        raise InputError(f"{run}: no systems to score")
    pairs = {pair.id: pair for pair in read_manifest(run / "corpus", "test")}
    outputs = {system: read_outputs(RunLayout(run).translate(system), pairs) for system in systems}
    ids = _common_ids(outputs, pairs)
    units = _target_units(run, ids)
    references = _references([pairs[id] for id in ids], units)
    recognizer = load_recognizer(settings.recognizer, settings.model, settings.device)
    predictors, notes = load_predictors(settings.mos, settings.device)
    examples = evenly(ids, settings.examples)
    jobs = {system: _system_speech(RunLayout(run).translate(system), outputs[system], ids) for system in systems}
    written = {system: _written(outputs[system], ids) for system in systems}
    if settings.ceilings:
        without_repeats = all(system.deduplicated for system in written.values())
        jobs |= _ceilings(run, pairs, units, ids, notes, without_repeats)
    for note in notes:
        say(f"score: {note}")

    def keep(id: str, waveform: np.ndarray) -> None:
        if id in examples:
            write_audio(folder / "resynthesized" / f"{id}.wav", waveform)

    folder.mkdir(parents=True, exist_ok=True)
    # What another recognizer or predictor heard before an interruption does not count.
    heard_by = digest_of([recognizer.signature, *(predictor.signature for predictor in predictors)])[:8]
    heard: dict[str, list[Heard]] = {}
    rated = evenly(ids, settings.mos_utterances or len(ids))
    with meter("score: listening", len(ids) * len(jobs)) as progress:
        for name, speech in jobs.items():
            log = folder / f"heard-{name.replace(' ', '-')}-{heard_by}.jsonl"
            kept = keep if name == RESYNTHESIS else None
            heard[name] = hear(speech, recognizer, log, progress, predictors, rated, kept)
    scores = assemble(heard, written, references, recognizer, settings, _source_of(pairs[id] for id in ids))
    scores["mos_predictors"] = {"signatures": [p.signature for p in predictors], "utterances": len(rated)}
    scores["training_hours"] = _training_hours(trained_on or run / "corpus")
    scores["notes"] = notes
    scores["examples"] = examples
    write_json(folder / "scores.json", scores)
    _write_utterances(folder / "utterances.jsonl", heard, written, references, recognizer)
    counts = {"utterances": len(ids)} | {name: row["asr_bleu"]["score"] for name, row in scores["systems"].items()}
    return StageResult(counts=counts)


def read_scores(folder: Path) -> dict[str, Any]:
    """Read the scores.json of a score stage's folder. Raises InputError when there is none."""
    scores = read_json(Path(folder) / "scores.json")
    if not isinstance(scores, dict) or "systems" not in scores or "signature" not in scores:
        raise InputError(f"{folder}/scores.json: not a score file of this version")
    return scores


def assemble(
    heard: Mapping[str, list[Heard]],
    written: Mapping[str, Written],
    references: References,
    recognizer: Recognizer,
    settings: ScoreSettings,
    source: str,
) -> dict[str, Any]:
    """All numbers of scores.json from what was heard and written; names not in `written` are ceilings."""
    samples = settings.bootstrap_samples
    rows: dict[str, dict[str, dict[str, Any]]] = {"systems": {}, "ceilings": {}}
    sacrebleu = ""
    for name, records in heard.items():
        of_system = written.get(name)
        row, sacrebleu = score_row(records, references, recognizer, of_system, samples)
        languages = score_by_language(records, references, recognizer, of_system, samples)
        row |= {"languages": languages} if languages else {}
        rows["ceilings" if name in (REFERENCE_SPEECH, RESYNTHESIS) else "systems"][name] = row
    texts = [recognizer.clean_reference(text) for text in references.texts]
    signature = metrics.Signature(
        recognizer.signature,
        recognizer.normalizer,
        metrics.digest_of_references(source, texts),
        len(references.ids),
        sacrebleu,
    )
    hypotheses = {
        name: [recognizer.clean_hypothesis(record.text) for record in heard[name]] for name in rows["systems"]
    }
    tests = _significance(hypotheses, texts, settings)
    spoken = references.language or []
    for language in sorted(set(spoken)) if len(set(spoken)) > 1 else ():
        keep = [i for i, value in enumerate(spoken) if value == language]
        some = {name: [texts[i] for i in keep] for name, texts in hypotheses.items()}
        tests += [test | {"language": language} for test in _significance(some, [texts[i] for i in keep], settings)]
    return {"signature": str(signature), "signature_fields": vars(signature), **rows, "significance": tests}


def _significance(
    hypotheses: Mapping[str, Sequence[str]], texts: Sequence[str], settings: ScoreSettings
) -> list[dict[str, Any]]:
    """Each system against the first by both of sacrebleu's paired tests, as far as the settings want them."""
    samples, trials = settings.bootstrap_samples, settings.randomisation_trials
    tests = metrics.compare_systems(hypotheses, texts, "bs", samples) if samples > 1 else []
    return tests + (metrics.compare_systems(hypotheses, texts, "ar", trials) if trials else [])


def read_outputs(folder: Path, pairs: Mapping[str, Pair]) -> dict[str, dict[str, Any]]:
    """Read a system's outputs.jsonl: utterance id -> row. Raises InputError on what cannot be scored."""
    path = folder / "outputs.jsonl"
    outputs: dict[str, dict[str, Any]] = {}
    for number, row in enumerate(read_lines(path), 1):
        id = str(row.get("id"))
        if id not in pairs:
            raise InputError(f"{path}, line {number}: utterance {id!r} is not in the corpus's test split")
        if id in outputs:
            raise InputError(f"{path}, line {number}: utterance {id!r} stands there twice")
        if row.get("audio") and not (folder / row["audio"]).is_file():
            raise InputError(f"{folder / row['audio']}: no such audio file, but {path} names it (utterance {id})")
        outputs[id] = row
    if not outputs:
        raise InputError(f"{path}: no utterances in it; decode the test split first")
    return outputs


def _common_ids(outputs: Mapping[str, Mapping[str, Any]], pairs: Mapping[str, Pair]) -> list[str]:
    first, *others = outputs
    for other in others:
        for name, missing in (
            (other, outputs[first].keys() - outputs[other].keys()),
            (first, outputs[other].keys() - outputs[first].keys()),
        ):
            if missing:
                raise InputError(f"system {name!r} lacks utterance {min(missing)!r}; decode the same ones with each")
    return [id for id in pairs if id in outputs[first]]


def _references(pairs: Sequence[Pair], units: Mapping[str, UnitRow]) -> References:
    for pair in pairs:
        if not (pair.tgt_text_raw or pair.tgt_text or "").strip():
            raise InputError(f"utterance {pair.id}: no reference translation in the manifest")
    have = all(pair.src_text and pair.src_text.strip() for pair in pairs)
    return References(
        ids=[pair.id for pair in pairs],
        texts=[pair.tgt_text_raw or pair.tgt_text or "" for pair in pairs],
        translation=[pair.tgt_text or "" for pair in pairs] if all(pair.tgt_text for pair in pairs) else None,
        transcript=[pair.src_text or "" for pair in pairs] if have else None,
        units=[units[pair.id].units for pair in pairs] if all(pair.id in units for pair in pairs) else None,
        language=[pair.src_lang for pair in pairs],
    )


def _source_of(pairs: Any) -> str:
    kinds = Counter("tgt_text_raw" if pair.tgt_text_raw else "tgt_text" for pair in pairs)
    return "+".join(sorted(kinds))


def _target_units(run: Path, ids: Sequence[str]) -> dict[str, UnitRow]:
    if not any((run / "units").glob("units-*.parquet")):
        return {}
    wanted = set(ids)
    return {id: row for (id, side), row in read_units(run / "units").items() if side == "tgt" and id in wanted}


def _system_speech(folder: Path, outputs: Mapping[str, Mapping[str, Any]], ids: Sequence[str]) -> Speech:
    def load(some: Sequence[str]) -> list[np.ndarray | None]:
        return [read_audio(folder / outputs[id]["audio"]) if outputs[id].get("audio") else None for id in some]

    return Speech(ids, load)


def _ceilings(
    run: Path,
    pairs: Mapping[str, Pair],
    units: Mapping[str, UnitRow],
    ids: Sequence[str],
    notes: list[str],
    without_repeats: bool,
) -> dict[str, Speech]:
    """Reference speech and resynthesized reference units, the latter with durations as all the systems have them."""
    jobs = {}
    if all(pairs[id].tgt_audio for id in ids):
        jobs[REFERENCE_SPEECH] = Speech(ids, lambda some: [read_audio(pairs[id].tgt_audio or "") for id in some])
    else:
        notes.append("no ceiling on reference speech: the corpus has none for some of the utterances")
    if not (run / "vocoder").is_dir() or any(id not in units for id in ids):
        notes.append("no ceiling on resynthesized units: there is no vocoder, or no units for some of the utterances")
    else:
        from unitweave.vocoder.synthesis import Vocoder

        vocoder = Vocoder.from_pretrained(run / "vocoder")
        if without_repeats:
            notes.append(f"{RESYNTHESIS}: repetitions dropped, durations predicted, as in the systems' own speech")

        def resynthesize(some: Sequence[str]) -> list[np.ndarray | None]:
            spoken = [units[id].units for id in some]
            if without_repeats:
                spoken = [deduplicate(one)[0] for one in spoken]
            return list(vocoder.synthesize(spoken, deduplicated=without_repeats))

        jobs[RESYNTHESIS] = Speech(ids, resynthesize)
    return jobs


def _written(outputs: Mapping[str, Mapping[str, Any]], ids: Sequence[str]) -> Written:
    return Written(
        [outputs[id].get("transcript") or "" for id in ids],
        [outputs[id].get("translation") or "" for id in ids],
        [outputs[id].get("units") or [] for id in ids],
        any(outputs[id].get("deduplicated") for id in ids),
    )


def _training_hours(corpus: Path) -> dict[str, float]:
    seconds: dict[str, float] = {}
    for pair in read_manifest(corpus, "train"):
        seconds[pair.src_lang] = seconds.get(pair.src_lang, 0.0) + (pair.src_seconds or 0.0)
    return {language: round(total / 3600, 2) for language, total in sorted(seconds.items())}


def evenly(ids: Sequence[str], count: int) -> list[str]:
    """`count` of the ids, at equal distances."""
    count = min(count, len(ids))
    return [ids[(2 * i + 1) * len(ids) // (2 * count)] for i in range(count)]


def _write_utterances(
    path: Path,
    heard: Mapping[str, list[Heard]],
    written: Mapping[str, Written],
    references: References,
    recognizer: Recognizer,
) -> None:
    """One line per utterance: references, and per row what was heard (raw and as scored) and written."""
    lines = []
    for i, id in enumerate(references.ids):
        rows: dict[str, dict[str, Any]] = {}
        for name, records in heard.items():
            rows[name] = {"heard": records[i].text, "scored": recognizer.clean_hypothesis(records[i].text)}
            rows[name] |= {"seconds": round(records[i].seconds, 3), "mos": records[i].mos}
            if name in written:
                rows[name]["transcript"] = written[name].transcript[i]
                rows[name]["translation"] = written[name].translation[i]
        line = {
            "id": id,
            "language": references.language[i] if references.language else None,
            "source": references.transcript[i] if references.transcript else None,
            "reference": recognizer.clean_reference(references.texts[i]),
            "rows": rows,
        }
        lines.append(json.dumps(line, ensure_ascii=False))
    write_text(path, "\n".join(lines) + "\n")
