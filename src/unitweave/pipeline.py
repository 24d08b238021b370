"""All stages of a run in order; each is done once and skipped when nothing changed.

`Run` has a method for each stage, which says what the stage reads and what else its result depends on, and hands
its work the settings and the folders that it needs. `run` is the whole of it in one call.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unitweave.config.corpus import EmbeddedCorpus, SynthesizedCorpus
from unitweave.config.interleave import FROM_SPEECH, Texts
from unitweave.config.lm import LmSettings
from unitweave.config.recipe import Recipe, keep_recipe
from unitweave.core.distributed import on_main
from unitweave.core.errors import InputError
from unitweave.core.files import content_digests, file_digest, folder_digest
from unitweave.core.imports import imported_on_call
from unitweave.core.layout import RunLayout
from unitweave.core.manifest import FILE_NAME as MANIFEST
from unitweave.core.manifest import read_manifest
from unitweave.core.progress import echo
from unitweave.core.stage import STAGE_FILE, StageResult, is_done, read_stage, run_stage, stage_fingerprint
from unitweave.core.text import NORMALIZER
from unitweave.corpus.assemble import import_manifest
from unitweave.corpus.embedded.corpus import build_embedded, embedded_settings, embedded_text, plan_digest
from unitweave.corpus.embedded.spoken import build_spoken, spoken_digest, spoken_settings
from unitweave.corpus.speech_engines import speech_identity
from unitweave.corpus.tasks import describe_tasks
from unitweave.interleaving.schedules.function import Function
from unitweave.preflight import (
    STAGES,
    check_corpus,
    check_frames,
    check_references,
    check_run,
    check_source,
    directions_of,
    expected_directions,
)
from unitweave.score.identity import scored_by
from unitweave.score.outputs import read_outputs
from unitweave.vocoder.config import check_trainable

if TYPE_CHECKING:
    from unitweave.lm.data.text import MultilingualSentence

# Torch and what is built on it, imported by the stage that has something to do: that everything is up to date is known
# in a second without them.
import_and_speak = imported_on_call("corpus.speak:import_and_speak")
train_encoder = imported_on_call("units.train_encoder:train_encoder")
train_codebook = imported_on_call("units.train_codebook:train_codebook")
extract_units = imported_on_call("units.extract:extract_units")
tokenize_corpus = imported_on_call("units.importing:tokenize_corpus")
train_text_lm = imported_on_call("lm.train.text_lm:train_text_lm")
train_lm = imported_on_call("lm.train.finetune:train_lm")
dev_evaluator = imported_on_call("translate.dev_evaluation:dev_evaluator")
adopt_vocoder = imported_on_call("vocoder.adopt:adopt_vocoder")
train_vocoder = imported_on_call("vocoder.train:train_vocoder")
translate_split = imported_on_call("translate.stage:translate_split")
check_cascade = imported_on_call("score.cascade:check_cascade")
translate_by_cascade = imported_on_call("score.cascade:translate_by_cascade")
score_run = imported_on_call("score.score:score_run")


class Run:
    """A run folder and the recipe that fills it. The method of a stage does it and returns its fingerprint."""

    def __init__(self, folder: Path, recipe: Recipe) -> None:
        self.folder, self.recipe, self.layout = Path(folder), recipe, RunLayout(Path(folder))

    def corpus(self) -> str:
        """The utterance pairs."""
        choice = self.recipe.corpus
        check_source(choice)
        if choice.embedded is not None:
            return self._embedded(choice.embedded)
        if choice.synthesized is not None:
            return self._spoken(choice.synthesized)
        source = Path(str(choice.manifest))
        manifest = {"manifest": file_digest(source / MANIFEST)}
        if (speak := choice.speak) is not None:
            counted = replace(choice, speak=replace(speak, workers=0))
            work = partial(import_and_speak, source=source, settings=speak)
            return self._stage(self.layout.corpus, counted, (), work, [NORMALIZER, speech_identity(speak)], manifest)
        plain = {key: value for key, value in vars(choice).items() if key != "speak"}  # as before there was such a key
        return self._stage(self.layout.corpus, plain, (), lambda f: import_manifest(f, source), NORMALIZER, manifest)

    def _embedded(self, settings: EmbeddedCorpus) -> str:
        counted = embedded_settings(settings).counted()  # only what changes the audio counts
        digest = plan_digest(settings)
        return self._stage(self.layout.corpus, counted, (), lambda f: build_embedded(f, settings), digest)

    def _spoken(self, settings: SynthesizedCorpus) -> str:
        counted = spoken_settings(settings).counted()
        return self._stage(
            self.layout.corpus, counted, (), lambda f: build_spoken(f, settings), spoken_digest(settings)
        )

    def encoder(self) -> str:
        """Train the speech encoder, or fine-tune a pretrained one."""
        settings, layout = self.recipe.encoder, self.layout
        return self._stage(
            layout.encoder,
            settings,
            (layout.corpus,),
            lambda f: train_encoder(f, settings, layout.corpus),
            content_digests(settings.pretrained),
            every_process=True,
        )

    def codebook(self) -> str:
        """Cluster the encoder's hidden states: the k-means codebook."""
        settings, layout = self.recipe.codebook, self.layout
        return self._stage(
            layout.codebook,
            settings,
            (layout.corpus, layout.encoder),
            lambda f: train_codebook(f, settings, layout.corpus, layout.encoder_model),
        )

    def units(self) -> str:
        """Extract units and word frames of every recording."""
        settings, layout = self.recipe.units, self.layout
        if settings.tokenizer is not None:
            encoder = None if settings.alignments is not None else layout.encoder_model
            return self._stage(
                layout.units,
                settings.in_fingerprint(),
                (layout.corpus,) if encoder is None else (layout.corpus, layout.encoder),
                lambda f: tokenize_corpus(f, settings, layout.corpus, encoder),
                folder_digest(Path(settings.alignments)) if settings.alignments is not None else None,
            )
        return self._stage(
            layout.units,
            settings.in_fingerprint(),
            (layout.corpus, layout.encoder, layout.codebook),
            lambda f: extract_units(f, settings, layout.corpus, layout.encoder_model, layout.codebook),
            every_process=True,
        )

    def corpus_and_units(self) -> None:
        """The corpus and its units; imported ones are kept."""
        self.corpus()
        pairs = read_manifest(self.layout.corpus)
        echo(f"corpus: {describe_tasks(pairs)}")
        check_corpus(self.recipe, pairs)
        check_references(self.recipe, pairs)
        if self.has_imported_units():
            echo("units: imported ones kept ('unitweave units extract' replaces them)")
            return
        units = self.recipe.units
        check_frames(self, pairs)
        if units.tokenizer is None or units.alignments is None:
            self.encoder()
        if units.tokenizer is None:
            self.codebook()
        self.units()

    def has_imported_units(self) -> bool:
        """Whether the units came from 'unitweave units import', for the corpus as it is."""
        if not (self.layout.units / STAGE_FILE).exists():
            return False
        stage = read_stage(self.folder, self.layout.name(self.layout.units))
        same = stage["inputs"].get("corpus") == stage_fingerprint(self.folder, self.layout.name(self.layout.corpus))
        return bool("import" in stage["settings"] and stage["status"] == "done" and same)

    def text_lm(self) -> str | None:
        """Train the small text language model; None where every system names a pretrained one."""
        if all(system.pretrained for system in self.recipe.systems.values()):
            return None
        settings, layout = self.recipe.text_lm, self.layout
        return self._stage(
            layout.text_lm,
            settings,
            (layout.corpus,),
            lambda f: train_text_lm(f, settings, self._sentences(settings.extra_sentences)),
            None if self._texts == ["normalized"] else self._texts,
            every_process=True,
        )

    def lm(self, name: str) -> str:
        """Fine-tune one system's language model on interleaved speech and text."""
        settings, layout = self.recipe.systems[name], self.layout
        text_lm = layout.text_lm_model if settings.pretrained is None else None
        schedule = settings.schedule
        ratios = Function(schedule, settings.training.steps).ratios if schedule.function is not None else None
        return self._stage(
            layout.lm(name),
            self.lm_settings(name),
            (layout.corpus, layout.units, *([layout.text_lm] if text_lm else [])),
            lambda f: train_lm(
                f, settings, layout.corpus, layout.units, text_lm, dev_evaluator(layout.corpus, settings.evaluation)
            ),
            [content_digests(settings.pretrained, settings.extra_text), ratios],
            every_process=True,
        )

    def lm_settings(self, name: str) -> LmSettings:
        """A system's settings as its stage records them: a schedule's function by its name."""
        settings = self.recipe.systems[name]
        return replace(settings, schedule=replace(settings.schedule, function=settings.schedule.function_name))

    def vocoder(self) -> str:
        """Train the vocoder, which turns units into a waveform, or take the one that the recipe names."""
        settings, layout = self.recipe.vocoder, self.layout
        if settings.from_elsewhere:
            given = content_digests(settings.pretrained)
            return self._stage(
                layout.vocoder, settings, (layout.units,), lambda f: adopt_vocoder(f, settings, layout.units), given
            )
        return self._stage(
            layout.vocoder,
            settings,
            (layout.corpus, layout.units),
            lambda f: train_vocoder(f, settings, layout.corpus, layout.units),
            every_process=True,
        )

    def translate(self, name: str) -> str:
        """Translate the test split with one system."""
        settings, layout = self.recipe.translate, self.layout
        spoken = (layout.vocoder,) if name in self.speaking else ()
        return self._stage(
            layout.translate(name),
            settings.in_fingerprint(),
            (layout.corpus, layout.units, layout.lm(name), *spoken),
            lambda f: translate_split(f, settings, layout.corpus, layout.units, layout.lm_model(name), layout.vocoder),
            every_process=True,
        )

    def score(self) -> str:
        """Score the translations, or the transcripts, of all systems that take speech."""
        settings, layout, systems = self.recipe.score, self.layout, self.from_speech
        if not systems:
            raise InputError(f"score: no system takes speech; that needs one of the tasks {', '.join(FROM_SPEECH)}")
        if settings.cascades:
            self.check(stages=["score"])  # before hours of these
        outputs = {name: layout.translate(name) for name in [*systems, *settings.cascades]}
        for name in settings.cascades:
            self.cascade(name)
        spoken = (layout.vocoder,) if self.speaking else ()
        return self._stage(
            layout.score,
            settings.in_fingerprint(),
            (layout.corpus, layout.units, *spoken, *outputs.values()),
            lambda f: score_run(f, settings, layout.corpus, layout.units, layout.vocoder, outputs),
            scored_by(settings, self.targets) if self.speaking else "texts",
            every_process=True,
        )

    def cascade(self, name: str) -> str:
        """Translate the test split with one cascade: what the systems have translated."""
        settings, layout = self.recipe.score.cascades[name], self.layout
        systems = self.from_speech
        reads = (layout.corpus, *[layout.translate(system) for system in systems[:1]])

        def work(folder: Path) -> StageResult:
            pairs = {pair.id: pair for pair in read_manifest(layout.corpus, "test")}
            ids = read_outputs(layout.translate(systems[0]), pairs)
            return translate_by_cascade(folder, settings, self.recipe.translate, [pairs[id] for id in ids])

        identity = check_cascade(name, settings, self.directions)
        return self._stage(layout.translate(name), settings, reads, work, identity, every_process=True)

    @property
    def speaking(self) -> list[str]:
        """The systems whose tasks make a model that translates speech into speech."""
        return [name for name, system in self.recipe.systems.items() if system.speech_to_speech]

    @property
    def from_speech(self) -> list[str]:
        """The systems whose tasks make a model that takes speech, and gives speech or text."""
        return [name for name, system in self.recipe.systems.items() if system.from_speech]

    def check(self, systems: Sequence[str] | None = None, stages: Sequence[str] = STAGES) -> None:
        """Raise InputError for what these systems (default: all) and stages need and what is not there."""
        for name in self.recipe.score.cascades:
            if name in self.recipe.systems:
                raise InputError(f"score.cascades.{name}: is also the name of a system; choose another name")
        on_main(lambda: check_run(self, list(self.recipe.systems) if systems is None else systems, stages))

    def all(self) -> None:
        """Every stage, in order; a system that takes no speech is trained and no more."""
        self.check()
        self.corpus_and_units()
        if self.speaking:
            check_trainable(self.recipe.vocoder, self.layout.units)
        if self.speaking and self.recipe.vocoder.from_elsewhere:
            self.vocoder()  # a trial of it takes seconds, what it is to speak hours
        self.text_lm()
        for name in self.recipe.systems:
            self.lm(name)
            if name not in self.from_speech:
                echo(f"lm/{name}: trained only; without one of {', '.join(FROM_SPEECH)} it is neither used nor scored")
        if self.speaking:
            self.vocoder()
        for name in self.from_speech:
            self.translate(name)
        if self.from_speech:
            self.score()

    @property
    def targets(self) -> set[str]:
        """The target languages of the corpus."""
        return {target for _, target in self.directions}

    @property
    def directions(self) -> set[tuple[str, str]]:
        """Source and target languages of the corpus, or of the one that will be made."""
        if is_done(self.folder, self.layout.name(self.layout.corpus)):
            return directions_of(read_manifest(self.layout.corpus))
        return expected_directions(self.recipe.corpus)

    def _stage(
        self,
        folder: Path,
        settings: object,
        reads: Sequence[Path],
        work: Callable[[Path], StageResult],
        extra: object = None,
        files: Mapping[str, str] | None = None,
        every_process: bool = False,
    ) -> str:
        """Do the stage of `folder`, which reads the folders of other stages and depends on `extra` and `files` too."""
        inputs = {self.layout.name(read): stage_fingerprint(self.folder, self.layout.name(read)) for read in reads}
        inputs |= files or {}
        return run_stage(self.folder, self.layout.name(folder), settings, inputs, work, extra, every_process)

    @property
    def _texts(self) -> list[Texts]:
        """What the systems that start from the run's own text LM write: its texts have to be like that."""
        return sorted({system.texts for system in self.recipe.systems.values() if not system.pretrained})

    def _sentences(self, number: int) -> "list[MultilingualSentence]":
        """Text for the small text LM: the training pairs' own, and further sentences of the phrasebook."""
        from unitweave.lm.data.dataset import running_text
        from unitweave.lm.data.text import MultilingualSentence

        pairs = [p for p in read_manifest(self.layout.corpus, "train") if p.src_text and p.tgt_text]
        corpus_sentences = [
            MultilingualSentence(
                {p.src_lang: running_text(str(p.src_text), p.src_text_raw, texts)},
                {p.tgt_lang: running_text(str(p.tgt_text), p.tgt_text_raw, texts)},
            )
            for texts in self._texts
            for p in pairs
        ]
        embedded = self.recipe.corpus.embedded
        if embedded is None or not number:
            return corpus_sentences
        sources: dict[str, list[str]] = {}
        for source, target in embedded.pairs:
            sources.setdefault(target, []).append(source)
        targets = list(sources)  # the sentences take turns in going into each of them
        return corpus_sentences + [
            MultilingualSentence({code: text[code] for code in sources[target]}, {target: text[target]})
            for texts in self._texts
            for i, text in enumerate(embedded_text(embedded, number, natural=texts == "natural"))
            for target in [targets[i % len(targets)]]
        ]


def run(recipe: Recipe | Path | str, out: Path | str) -> Run:
    """Do every stage of a recipe that is not yet done: the corpus, the models, the translations, the scores.

    Args:
        recipe: A recipe, the path of its YAML file, or the name of a built-in one such as "demo".
        out: The run folder. What an earlier call left there is kept as far as the recipe still asks for it.

    Returns:
        The run; `read_scores(run.layout.score)` reads its scores.

    Raises:
        InputError: The recipe has invalid values, or `out` is not a run folder.
    """
    opened = open_run(Path(out), recipe)
    opened.all()
    return opened


def open_run(
    folder: Path, recipe: Recipe | Path | str | None = None, overrides: Mapping[str, Any] | None = None
) -> Run:
    """A run folder with its recipe, which is checked and kept in it.

    Args:
        folder: The run folder.
        recipe: A recipe, its file, or the name of a built-in one; None for the folder's own.
        overrides: Settings that take the place of the recipe's, as nested plain values.

    Raises:
        InputError: There is no such recipe, it has invalid values, or `folder` cannot be a run folder.
    """
    return Run(folder, keep_recipe(folder, recipe, overrides or {}))
