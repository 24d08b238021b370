"""Built-in values of settings are files: one that lies in the folder is a value, and nothing else has to change."""

import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import get_args

import pytest

import unitweave
from unitweave.config import interleave, live, score, vocoder
from unitweave.core.choices import chosen

NEW = {
    "interleaving/schedules/half_life.py": """
from unitweave.interleaving.schedules import Schedule

class HalfLife(Schedule):
    def __call__(self, step):
        return self.settings.start * 0.5 ** (step / self.settings.end)
""",
    "score/asr/recognizers/parrot.py": """
from unitweave.score.asr.recognizers import Recognizer

class Parrot(Recognizer):
    signature = "parrot-1"

    def transcribe(self, waveforms, language="en"):
        return ["hello" for _ in waveforms]
""",
    "translate/live/policies/at_once.py": """
from unitweave.translate.live.policies import CommitPolicy

class AtOnce(CommitPolicy):
    def committed_words(self, hypotheses):
        return len(hypotheses[-1].translation)
""",
    "vocoder/generators/hum.py": """
from unitweave.vocoder.generators import Generator

class Hum(Generator):
    context_frames = 0

    def forward(self, x, lengths=None, f0=None, position=None):
        return x.mean(-1).repeat_interleave(self.config.hop, dim=1), None
""",
}
PROGRAM = """
import torch
from unitweave.config.interleave import ScheduleSettings
from unitweave.config.live import LiveSettings
from unitweave.config.score import CascadeRecognizer, ScoreSettings
from unitweave.config.vocoder import VocoderSettings
from unitweave.interleaving.schedule import text_ratio
from unitweave.score.asr.recognizers import choose_recognizer, load_recognizer
from unitweave.translate.live.session import LiveSession
from unitweave.vocoder.config import UnitVocoderConfig
from unitweave.vocoder.model import UnitVocoder

ratio = text_ratio(ScheduleSettings(shape="half-life", start=0.8, end=0.1, unit="fraction"), 100)
assert [round(ratio(step), 3) for step in (0, 10, 20)] == [0.8, 0.4, 0.2] and ratio.last_change == 10
CascadeRecognizer(engine="parrot")
name = ScoreSettings(recognizer="parrot").recognizer
assert load_recognizer(*choose_recognizer(name, "", ["sw"])).transcribe([None]) == ["hello"]
session = LiveSession(LiveSettings(policy="at-once"), lambda window: 0.0)
assert type(session._policy).__name__ == "AtOnce"
config = UnitVocoderConfig(5, "", generator=VocoderSettings(generator="hum").generator)
assert UnitVocoder(config)(torch.zeros(1, 3, dtype=torch.long)).shape == (1, 960)
"""


def test_the_settings_offer_the_files_of_the_folders_the_default_first() -> None:
    assert get_args(interleave.Shape)[0] == interleave.ScheduleSettings().shape == "staircase"
    assert get_args(live.Policy) == ("utterance", "agreement", "wait-k")
    assert score.BUILT_IN_RECOGNIZERS == ("moonshine", "fairseq", "whisper")
    assert get_args(vocoder.GeneratorName) == ("vocos", "hifigan")
    for folder, names in (
        (interleave.SCHEDULES, [name for name in get_args(interleave.Shape) if name != "none"]),
        (live.POLICIES, get_args(live.Policy)),
        (score.RECOGNIZERS, score.BUILT_IN_RECOGNIZERS),
        (vocoder.GENERATORS, vocoder.BUILT_IN_GENERATORS),
    ):
        assert all(isinstance(chosen(folder, name), type) for name in names)


@pytest.mark.processes
def test_one_file_is_all_that_a_new_value_takes(tmp_path: Path) -> None:
    package = tmp_path / "unitweave"
    shutil.copytree(Path(unitweave.__file__).parent, package, ignore=shutil.ignore_patterns("__pycache__", "*_data"))
    for name, source in NEW.items():
        (package / name).write_text(source)
    environment = {**os.environ, "PYTHONPATH": str(tmp_path)}
    done = subprocess.run([sys.executable, "-c", PROGRAM], env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
