"""All stages of a run in order; each is done once and skipped when nothing changed."""

import re
from collections.abc import Callable
from dataclasses import replace
from functools import cache
from pathlib import Path

from unitweave.config.recipe import Recipe
from unitweave.core.errors import InputError
from unitweave.core.files import digest_of, digest_of_file
from unitweave.core.manifest import FILE_NAME as MANIFEST
from unitweave.core.manifest import read_manifest
from unitweave.core.progress import say
from unitweave.core.stage import STAGE_FILE, StageResult, fingerprint_of, read_stage, run_stage
from unitweave.core.text import NORMALIZER
from unitweave.corpus.assemble import adopt
from unitweave.corpus.embedded.corpus import EmbeddedCorpus, build_embedded, embedded_text, plan_digest
from unitweave.corpus.embedded.spoken import SpokenCorpus, build_spoken, spoken_digest, spoken_settings
from unitweave.interleaving.sequence import SPEECH_TO_SPEECH
from unitweave.lm.text_lm import train_text_lm
from unitweave.lm.train.finetune import LmSettings, train_lm
from unitweave.score.score import score_run, scored_by
from unitweave.translate.translator import translate_split
from unitweave.units.extract import check_extract, extract_units, settings_that_count, train_codebook
from unitweave.units.train_encoder import train_encoder
from unitweave.vocoder.train import train_vocoder

_SPEAKING = " or ".join(SPEECH_TO_SPEECH)


class Run:
    """A run folder and the recipe that fills it. Every method does one stage and returns its fingerprint."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.folder, self.recipe = Path(folder), recipe

    def corpus(self) -> str:
        """The utterance pairs."""
        choice = self.recipe.corpus
        if sum(source is not None for source in (choice.manifest, choice.embedded, choice.spoken)) != 1:
            raise InputError("corpus: name one source: 'manifest' (a corpus folder), 'embedded' or 'spoken'")
        if choice.embedded is not None:
            embedded: EmbeddedCorpus = choice.embedded
            # Only what changes the audio counts: the number of workers does not.
            return run_stage(
                self.folder,
                "corpus",
                replace(embedded, workers=0),
                {},
                lambda f: build_embedded(f, embedded),
                extra=plan_digest(embedded),
            )
        if choice.spoken is not None:
            spoken: SpokenCorpus = choice.spoken
            return run_stage(
                self.folder,
                "corpus",
                spoken_settings(spoken),
                {},
                lambda f: build_spoken(f, spoken),
                extra=spoken_digest(spoken),
            )
        source = Path(str(choice.manifest))
        if not (source / MANIFEST).exists():
            raise InputError(f"corpus.manifest {source}: no manifest there; make one with 'unitweave corpus'")
        return run_stage(
            self.folder,
            "corpus",
            choice,
            {"manifest": digest_of_file(source / MANIFEST)},
            lambda f: adopt(f, source),
            extra=NORMALIZER,
        )

    def encoder(self) -> str:
        """The speech encoder."""
        settings = self.recipe.encoder
        return self._stage(
            "encoder",
            settings,
            ("corpus",),
            lambda f: train_encoder(f, settings, self._at("corpus")),
            contents(settings.pretrained),
        )

    def codebook(self) -> str:
        """The k-means codebook."""
        settings = self.recipe.codebook
        return self._stage(
            "codebook",
            settings,
            ("corpus", "encoder"),
            lambda f: train_codebook(f, settings, self._at("corpus"), self._at("encoder/model")),
        )

    def units(self) -> str:
        """Units and word frames of every recording."""
        settings = self.recipe.units
        check_extract(settings)
        return self._stage(
            "units",
            settings_that_count(settings),
            ("corpus", "encoder", "codebook"),
            lambda f: extract_units(f, settings, self._at("corpus"), self._at("encoder/model"), self._at("codebook")),
        )

    def corpus_and_units(self) -> None:
        """The corpus and its units; imported ones are kept."""
        self.corpus()
        if self.has_imported_units():
            say("units: imported, kept ('unitweave units extract' would make our own)")
            return
        self.encoder()
        self.codebook()
        self.units()

    def has_imported_units(self) -> bool:
        """Whether the units came from 'unitweave units import', for the corpus as it is."""
        if not (self.folder / "units" / STAGE_FILE).exists():
            return False
        stage = read_stage(self.folder, "units")
        same = stage["inputs"].get("corpus") == fingerprint_of(self.folder, "corpus")
        return bool("import" in stage["settings"] and stage["status"] == "done" and same)

    def text_lm(self) -> str | None:
        """The small text language model; None where every system names a pretrained one."""
        if all(system.pretrained for system in self.recipe.systems.values()):
            return None
        settings = self.recipe.text_lm
        return self._stage(
            "text_lm", settings, ("corpus",), lambda f: train_text_lm(f, settings, self._sentences(settings.sentences))
        )

    def lm(self, name: str) -> str:
        """One system: the language model fine-tuned on speech."""
        settings: LmSettings = self.recipe.systems[name]
        own = settings.pretrained is None
        return self._stage(
            f"lm/{name}",
            settings,
            ("corpus", "units", *(("text_lm",) if own else ())),
            lambda f: train_lm(
                f, settings, self._at("corpus"), self._at("units"), self._at("text_lm/model") if own else None
            ),
            contents(settings.pretrained, settings.extra_text),
        )

    def vocoder(self) -> str:
        """The voice."""
        settings = self.recipe.vocoder
        return self._stage(
            "vocoder",
            settings,
            ("corpus", "units"),
            lambda f: train_vocoder(f, settings, self._at("corpus"), self._at("units")),
        )

    def translate(self, name: str) -> str:
        """The test split, translated by one system."""
        settings = self.recipe.translate
        return self._stage(
            f"speech/{name}",
            settings,
            ("corpus", "units", f"lm/{name}", "vocoder"),
            lambda f: translate_split(
                f, settings, self._at("corpus"), self._at("units"), self._at(f"lm/{name}/model"), self._at("vocoder")
            ),
        )

    def score(self) -> str:
        """Scores of all systems."""
        settings, systems = self.recipe.score, self.speaking
        if not systems:
            raise InputError(f"score: no system here goes from speech to speech; tasks needs {_SPEAKING} for that")
        return self._stage(
            "score",
            settings,
            ("corpus", "units", "vocoder", *(f"speech/{name}" for name in systems)),
            lambda f: score_run(f, settings, self.folder, systems),
            scored_by(settings),
        )

    @property
    def speaking(self) -> list[str]:
        """The systems whose tasks make a model that translates speech into speech."""
        return [name for name, system in self.recipe.systems.items() if system.speaks]

    def all(self) -> None:
        """Every stage, in order; a system that does not translate speech into speech is trained and no more."""
        self.corpus_and_units()
        self.text_lm()
        for name in self.recipe.systems:
            self.lm(name)
            if name not in self.speaking:
                say(f"lm/{name}: without the task {_SPEAKING} it is trained and neither translates nor is scored")
        if not self.speaking:
            return
        self.vocoder()
        for name in self.speaking:
            self.translate(name)
        self.score()

    def _at(self, name: str) -> Path:
        return self.folder / name

    def _stage(
        self,
        name: str,
        settings: object,
        reads: tuple[str, ...],
        work: Callable[[Path], StageResult],
        extra: object = None,
    ) -> str:
        return run_stage(self.folder, name, settings, {r: fingerprint_of(self.folder, r) for r in reads}, work, extra)

    def _sentences(self, number: int) -> list[dict[str, str]]:
        """Text for the small text LM: the training pairs' own, and further sentences of the phrasebook."""
        pairs = [p for p in read_manifest(self._at("corpus"), "train") if p.src_text and p.tgt_text]
        own = [{p.src_lang: str(p.src_text), p.tgt_lang: str(p.tgt_text)} for p in pairs]
        embedded = self.recipe.corpus.embedded
        return own + (embedded_text(embedded, number) if embedded is not None and number else [])


def contents(*paths: str | None) -> dict[str, str] | None:
    """Digests of those of the paths that are here: settings name them, but what is in them counts."""
    found = {}
    for path in paths:
        if path is not None and Path(path).is_file():
            found[path] = digest_of_file(Path(path))
        elif path is not None and (digest := weights_digest(path)):
            found[path] = digest
    return found or None


@cache
def weights_digest(pretrained: str) -> str:
    """Digest of the weights and the tokenizer in a model's folder; "" where it is none (but a name on the hub)."""
    folder = Path(pretrained)
    kinds = ("*.safetensors", "pytorch_model*.bin", "tokenizer.json", "tokenizer.model", "config.json")
    files = sorted(path for kind in kinds for path in folder.glob(kind))
    return digest_of([digest_of_file(path) for path in files]) if folder.is_dir() else ""


def check_run_folder(folder: Path) -> None:
    """Raise InputError when `folder` cannot become or be a run folder."""
    if folder.exists() and not folder.is_dir():
        raise InputError(f"{folder}: is a file; --out names a folder")
    if re.search(r"[\0]", str(folder)):
        raise InputError("--out: not a possible folder name")
