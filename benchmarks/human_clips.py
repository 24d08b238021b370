"""The page of five human lines, docs/human-clips.md, from a folder of the experiment `human`.

    python benchmarks/human_clips.py FOLDER [--docs docs] [--record results/human/people.jsonl]

Every fifteenth line of the people in the test split, as the baseline and the scheduled system say it: their recordings
are written to docs/audio/human, beside those of the actors and of the cascade, whose texts and those of Whisper base
the record has. The script also prints, for people and speech engines, the word error rate of the transcripts that the
systems write before they translate (normalized, accents folded), with 95 % intervals over the utterances.
"""

import argparse
import sys
from pathlib import Path

import numpy as np
import soundfile

from human import error_rate, interval, word_errors
from unitweave.core.layout import RunLayout
from unitweave.core.records import json_lines
from unitweave.core.text import normalize
from unitweave.score.scores import read_utterances

SYSTEMS = ("baseline", "scheduled")
HEAD = """---
hide: [toc]
---

# Five human lines

Every fifteenth of the 75 human lines in the test split, with no other selection
([human speech](human.md#a-second-experiment-on-two-cpu-cores)). The recordings are of *Drascula: The Vampire Strikes
Back*, © 1996-2008 Alcachofa Soft S.L.; **they are modified**: cut out, resampled and compressed.
[Its licence](audio/human/DRASCULA-README.txt) allows that.

*Baseline* and *scheduled* are the trainings with seed 1 of `results/human-small.md`. Neither translates human speech
well; they are here so that you can hear how far they get. `python benchmarks/human_clips.py FOLDER` writes this page
and their recordings.

| | who | Spanish | English |
| --- | --- | --- | --- |
"""


def main() -> None:
    """Write the page and the recordings, print the error rates."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--docs", type=Path, default=Path("docs"))
    parser.add_argument("--record", type=Path, default=Path("results/human/people.jsonl"))
    options = parser.parse_args()
    trials = {system: _trials(options.folder, system)[0] for system in SYSTEMS}
    lines = {
        system: {line.id: line for line in read_utterances(RunLayout(options.folder).scores(trial))}
        for system, trial in trials.items()
    }
    _print_error_rates(options.folder)
    place = options.docs / "audio/human"
    recorded = list(json_lines(options.record))
    rows = []
    for line in recorded[::15]:
        name, cascade = str(line["id"]), line["cascade"]
        rows.append(_row(name, "the actors", line["source"], line["reference"], "source", "dub"))
        rows.append(_row("", "cascade", cascade["transcript"], cascade["translation"], "", f"{name}-cascade"))
        for system, trial in trials.items():
            made = lines[system][name].outputs[trial]
            audio, rate = soundfile.read(RunLayout(options.folder).translate(trial) / "audio" / f"{name}.wav")
            soundfile.write(place / f"{name}-{system}.ogg", audio, rate, format="OGG", subtype="VORBIS")
            rows.append(_row("", system, made.transcript or "", made.translation or "", "", f"{name}-{system}"))
        rows.append(_row("", "Whisper base's own translation", "", line["whisper"], "", ""))
    page = options.docs / "human-clips.md"
    page.write_text(HEAD + "\n".join(rows) + "\n", encoding="utf-8")
    print(page)


def _trials(folder: Path, system: str) -> list[str]:
    """The scored trials of a system, in the order of their names: seed 1 first."""
    found = [path.name for path in sorted((folder / "scores").iterdir()) if f"_{system}_" in path.name]
    return found or sys.exit(f"{folder}: no scored trial of {system}")


def _row(name: str, who: str, source: str, translation: str, source_clip: str, clip: str) -> str:
    source_clip = f"{name}-{source_clip}" if source_clip else ""
    clip = f"{name}-{clip}" if name else clip
    return f"| {name} | {who} | {source}{_player(source_clip)} | {translation}{_player(clip)} |"


def _player(clip: str) -> str:
    if not clip:
        return ""
    sound = f'<audio controls style="width: 13em" preload="none" src="../audio/human/{clip}.ogg"></audio>'
    return f"<br>{sound}<br>[file](audio/human/{clip}.ogg)"


def _print_error_rates(folder: Path) -> None:
    print("| recordings | training | utterances | WER of the transcript | words right |")
    print("| --- | --- | ---: | ---: | ---: |")
    for part, synthetic in (("speech engines", True), ("people", False)):
        for trial in [trial for system in SYSTEMS for trial in _trials(folder, system)]:
            scored = read_utterances(RunLayout(folder).scores(trial))
            own = [line for line in scored if line.id.startswith("es_test_") == synthetic]
            words = np.array(
                [word_errors(line.source or "", normalize(line.outputs[trial].transcript or "", "es")) for line in own]
            )
            right = 100 * words[:, 2].sum() / words[:, 1].sum()
            print(f"| {part} | {trial} | {len(own)} | {interval(words, error_rate)} | {right:.0f} % |")


if __name__ == "__main__":
    main()
