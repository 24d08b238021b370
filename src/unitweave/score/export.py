"""The translations of a scored run in the layouts that public evaluation suites read."""

import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from unitweave.core.audio import write_audio
from unitweave.core.errors import InputError
from unitweave.core.files import atomic_path, write_text
from unitweave.core.layout import RunLayout
from unitweave.core.manifest import Pair, read_manifest
from unitweave.core.scripts import join_words
from unitweave.score.outputs import read_outputs
from unitweave.score.scores import ScoredUtterance, read_scores, read_utterances

_README = """Written by unitweave. Line N of each text file, and N_pred.wav, belong to one utterance (N from 0);
utterances.tsv names them.

sources.txt                      source texts
references.txt                   reference translations
text, source.scp, reference.scp  Kaldi: id and reference text, source recording, reference recording
SYSTEM/N_pred.wav, wav.scp       its speech, and the same for Kaldi
SYSTEM/asr.txt                   the recognizer's transcript of its speech
SYSTEM/translation.txt, transcript.txt   what the system wrote

fairseq    compute_asr_bleu.py --lang {language} --audio_dirpath SYSTEM --reference_format txt \\
             --reference_path references.txt
sacrebleu  sacrebleu references.txt -i SYSTEM/asr.txt
COMET      comet-score -s sources.txt -t SYSTEM/asr.txt -r references.txt
VERSA      scorer.py --pred SYSTEM/wav.scp --gt reference.scp --text text --score_config ...
"""


def export_run(run: Path, out: Path) -> Path:
    """Write a folder for public evaluation suites, whole or not at all.

    Args:
        run: A run that has been scored.
        out: The folder to write.

    Raises:
        InputError: The run is not scored, or `out` is there already.
    """
    layout, out = RunLayout(Path(run)), Path(out)
    if out.exists():
        raise InputError(f"{out}: already exists; choose another folder")
    scores, utterances = read_scores(layout.score), read_utterances(layout.score)
    pairs = {pair.id: pair for pair in read_manifest(layout.corpus, "test")}
    chosen = [pairs[utterance.id] for utterance in utterances if utterance.id in pairs]
    if len(chosen) < len(utterances):
        raise InputError(f"{layout.corpus}: lacks utterances that were scored; score the run again")
    # Names end up in files that their tools split at blanks and tabs.
    ids = {pair.id: "_".join(pair.id.split()) for pair in chosen}
    with atomic_path(out) as temporary:
        temporary.mkdir()
        _write_references(temporary, chosen, ids)
        for system in scores.systems:
            files = _copy_speech(temporary / system, layout.translate(system), system, pairs, chosen)
            places = [out.resolve() / system / file for file in files]
            _write_lines(
                temporary / system / "wav.scp", [f"{ids[p.id]} {w}" for p, w in zip(chosen, places, strict=True)]
            )
            _write_texts(temporary / system, system, utterances)
        languages = "/".join(sorted({pair.tgt_lang for pair in chosen}))
        write_text(temporary / "README.txt", _README.format(language=languages))
    return out


def _write_references(folder: Path, pairs: Sequence[Pair], ids: Mapping[str, str]) -> None:
    references = [_line(pair.tgt_text_raw or join_words(pair.tgt_text or "")) for pair in pairs]
    sources = [_line(pair.src_text_raw or join_words(pair.src_text or "")) for pair in pairs]
    _write_lines(folder / "references.txt", references)
    _write_lines(folder / "text", [f"{ids[pair.id]} {text}" for pair, text in zip(pairs, references, strict=True)])
    if all(sources):
        _write_lines(folder / "sources.txt", sources)
    for name, audio in (
        ("source.scp", {pair.id: pair.src_audio for pair in pairs}),
        ("reference.scp", {pair.id: pair.tgt_audio for pair in pairs}),
    ):
        if all(audio.values()):
            _write_lines(folder / name, [f"{ids[id]} {Path(str(path)).resolve()}" for id, path in audio.items()])
    rows = ["id\tsrc_lang\ttgt_lang\tspeaker\tsource\treference"]
    for pair, source, reference in zip(pairs, sources, references, strict=True):
        rows.append("\t".join([ids[pair.id], pair.src_lang, pair.tgt_lang, _line(pair.speaker), source, reference]))
    _write_lines(folder / "utterances.tsv", rows)


def _copy_speech(
    folder: Path, outputs: Path, system: str, pairs: Mapping[str, Pair], chosen: Sequence[Pair]
) -> list[str]:
    """Names of the files of a system, 0_pred.wav, 1_pred.wav, ...; a tenth of a second of silence where it is mute."""
    folder.mkdir()
    written = read_outputs(outputs, pairs)
    for number, pair in enumerate(chosen):
        if pair.id not in written:
            raise InputError(f"{outputs}: lacks utterance {pair.id}, which was scored; score the run again")
        audio, path = written[pair.id].audio, folder / f"{number}_pred.wav"
        if audio:
            shutil.copyfile(outputs / audio, path)
        else:
            write_audio(path, np.zeros(1600, np.float32))
    return [f"{number}_pred.wav" for number in range(len(chosen))]


def _write_texts(folder: Path, system: str, utterances: Sequence[ScoredUtterance]) -> None:
    rows = [utterance.outputs[system] for utterance in utterances]
    _write_lines(folder / "asr.txt", [_line(row.asr_transcript) for row in rows])
    for name in ("translation", "transcript"):
        if any(texts := [_line(getattr(row, name)) for row in rows]):
            _write_lines(folder / f"{name}.txt", texts)


def _line(text: str | None) -> str:
    return " ".join((text or "").split())


def _write_lines(path: Path, lines: Sequence[str]) -> None:
    write_text(path, "".join(f"{line}\n" for line in lines))
