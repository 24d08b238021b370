"""COMET (Rei et al. 2020) of ASR transcripts, by the program of unbabel-comet.

That package needs versions of transformers and numpy before those of unitweave, so it lives in an environment of its
own and is called as a program.
"""

import itertools
import json
import math
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch

from unitweave.config.score import ScoreSettings
from unitweave.core.errors import InputError
from unitweave.score.asr.transcripts import AsrTranscript
from unitweave.score.rows import References

_HOW = "python -m venv comet && comet/bin/pip install unbabel-comet"


def check_comet(settings: ScoreSettings, sources: Sequence[str]) -> None:
    """Raise InputError where COMET is wanted and its program is not installed, or source texts are missing."""
    check_comet_program(settings)
    if settings.comet and (not sources or not all(text.strip() for text in sources)):
        raise InputError("score.comet: COMET needs the source text of every utterance; leave score.comet empty")


def check_comet_program(settings: ScoreSettings) -> None:
    """Raise InputError where COMET is wanted and its program is not installed."""
    if not settings.comet:
        return
    words = shlex.split(settings.comet_command)
    if not words or shutil.which(words[0]) is None:
        raise InputError(
            f"score.comet: the program {settings.comet_command!r} is not installed. It needs an environment of its "
            f"own ({_HOW}): set score.comet_command to its program (comet/bin/comet-score), or leave score.comet empty"
        )


def add_comet(
    transcripts: Mapping[str, Sequence[AsrTranscript]], references: References, settings: ScoreSettings
) -> None:
    """Add COMET to the transcripts of each system, where the settings want it; errors as for `comet_scores`."""
    if not settings.comet or not transcripts:
        return
    hypotheses = {name: [record.text for record in records] for name, records in transcripts.items()}
    comet = comet_scores(settings.comet, settings.comet_command, references.source_texts, references.texts, hypotheses)
    for name, records in transcripts.items():
        for record, score in zip(records, comet[name], strict=True):
            record.comet = round(score, 4)


def comet_scores(
    model: str, command: str, sources: Sequence[str], references: Sequence[str], hypotheses: Mapping[str, Sequence[str]]
) -> dict[str, list[float]]:
    """COMET of each utterance of each system.

    Args:
        model: Name of the model, or its checkpoint file.
        command: The program, comet-score.
        sources: Source texts.
        references: Translations.
        hypotheses: System -> its translations.

    Raises:
        InputError: The program fails, for instance because the model cannot be downloaded.
    """
    with tempfile.TemporaryDirectory() as folder:

        def written(name: str, texts: Sequence[str]) -> str:
            path = Path(folder) / name
            path.write_text("".join(f"{' '.join(text.split())}\n" for text in texts), encoding="utf-8")
            return str(path)

        files = {name: written(f"{i}.hypotheses", texts) for i, (name, texts) in enumerate(hypotheses.items())}
        out = Path(folder) / "comet.json"
        arguments = ["-s", written("sources", sources), "-r", written("references", references), "-t", *files.values()]
        arguments += ["--model", model, "--gpus", "1" if torch.cuda.is_available() else "0"]
        done = subprocess.run(
            [*shlex.split(command), *arguments, "--quiet", "--only_system", "--to_json", str(out)],
            capture_output=True, encoding="utf-8", errors="replace", check=False,
        )  # fmt: skip
        if done.returncode or not out.is_file():
            message = (done.stderr.strip() or done.stdout.strip() or f"exit code {done.returncode}").splitlines()[-1]
            raise InputError(f"score.comet {model}: {command} failed ({message}); leave score.comet empty to skip it")
        try:
            scores = {
                name: [float(row["COMET"]) for row in json.loads(out.read_text("utf-8"))[path]]
                for name, path in files.items()
            }
            if not all(map(math.isfinite, itertools.chain(*scores.values()))):
                raise ValueError("a score is not a finite number")
        except (ValueError, KeyError, TypeError) as error:
            raise InputError(f"score.comet: {command} wrote unexpected output ({error})") from None
    if any(len(rows) != len(references) for rows in scores.values()):
        raise InputError(f"score.comet: {command} did not score every utterance")
    return scores
