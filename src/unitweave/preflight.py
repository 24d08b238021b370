"""What a run names and does not make: looked for before its first stage, not hours later in the stage that needs it.

These are pretrained models, functions, programs, tables and packages. What is small enough is loaded once as a trial;
of large models the configuration, the tokenizer and the heads of the weight files are read. Stages that are done
already need nothing.
"""

from collections.abc import Collection, Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pyarrow.compute as pc

from unitweave.config.corpus import CorpusSettings
from unitweave.config.lm import LmSettings
from unitweave.config.recipe import Recipe
from unitweave.config.units import check_layer
from unitweave.core.errors import InputError, error_prefix
from unitweave.core.imports import imported_on_call
from unitweave.core.languages import language_code
from unitweave.core.manifest import FILE_NAME as MANIFEST
from unitweave.core.manifest import Manifest, read_manifest
from unitweave.core.stage import is_done, is_done_with, read_stage
from unitweave.corpus.tasks import check_directions, check_tasks
from unitweave.lm.data.subset import train_subset
from unitweave.training.model_files import check_reachable
from unitweave.units.dataset import FRAME_RATE, SIDES, read_units_metadata, units_per_second
from unitweave.vocoder.config import check_shared_batch, check_vocoder_exists, timing

if TYPE_CHECKING:
    from unitweave.pipeline import Run

# On call, since they import torch: what is missing on the disk is known without it.
check_initial_encoder = imported_on_call("units.initial_encoder:check_initial_encoder")
initial_frame_rate = imported_on_call("units.initial_encoder:initial_frame_rate")
configured_tokenizer = imported_on_call("units.tokenizer:configured_tokenizer")
check_system = imported_on_call("lm.checks:check_system")
try_packing = imported_on_call("lm.checks:try_packing")
check_compile_backend = imported_on_call("lm.checks:check_compile_backend")
named_vocoder = imported_on_call("vocoder.adopt:named_vocoder")
check_scoring = imported_on_call("score.checks:check_scoring")
try_cascade = imported_on_call("score.cascade:try_cascade")

STAGES = ("units", "lm", "vocoder", "score")


class _Due:
    """Whether a stage is to be done: it is not there with these settings, or one before it was not."""

    def __init__(self, run: "Run") -> None:
        self.run, self.found = run, False

    def __call__(self, folder: Path, settings: object) -> bool:
        self.found = self.found or not is_done_with(self.run.folder, self.run.layout.name(folder), settings)
        return self.found


def check_run(run: "Run", systems: Sequence[str], stages: Sequence[str] = STAGES) -> None:
    """Raise InputError for what a run names and that is missing, or cannot be used for it.

    Args:
        run: The run.
        systems: The systems that are to be trained, translated with and scored.
        stages: Which of STAGES are to be done.
    """
    recipe, layout, due = run.recipe, run.layout, _Due(run)
    chosen = {name: recipe.systems[name] for name in systems}
    if not is_done(run.folder, layout.name(layout.corpus)):
        _check_planned_corpus(recipe)
    _check_target(run, chosen.values())
    num_units, frame_rate = _units(run, due, "units" in stages)
    backend = recipe.text_lm.training.torch_compile_backend
    if backend is not None and "lm" in stages and due(layout.text_lm, recipe.text_lm):
        check_compile_backend(backend, "text_lm.training.torch_compile_backend")
    if "lm" in stages:
        _check_systems(run, chosen, due, num_units)
    speaking = [system for system in chosen.values() if system.speech_to_speech]
    if "vocoder" in stages and speaking and due(layout.vocoder, recipe.vocoder):
        _check_vocoder(recipe, speaking, num_units, frame_rate)
    if "score" in stages and any(system.from_speech for system in chosen.values()):
        for name, cascade in recipe.score.cascades.items():
            if due(layout.translate(name), cascade):
                with error_prefix(f"score.cascades.{name}"):
                    try_cascade(cascade, run.directions)
        if speaking and due(layout.score, recipe.score.in_fingerprint()):
            check_scoring(recipe.score, run.targets)


def _check_systems(run: "Run", systems: Mapping[str, LmSettings], due: _Due, num_units: int) -> None:
    """Raise InputError for what the training of the systems that are to be trained would refuse."""
    # Where the units are done, the training comes next and tries it itself.
    try_early, tried = not is_done(run.folder, run.layout.name(run.layout.units)), set()
    for name, system in systems.items():
        if not due(run.layout.lm(name), run.lm_settings(name)):
            continue
        with error_prefix(f"systems.{name} (or lm)"):
            if system.pretrained is not None:
                check_reachable(system.pretrained)
            check_system(system, num_units)
            packed = (system.pretrained, system.training.cross_entropy)
            if try_early and system.pretrained is not None and packed not in tried:
                try_packing(*packed)
                tried.add(packed)


def _check_target(run: "Run", systems: Iterable[LmSettings]) -> None:
    """Raise InputError for a default target language that no system will translate into."""
    wanted = run.recipe.translate.target_language
    # What is trained on from an earlier model keeps that one's directions.
    earlier = any(system.pretrained and (Path(system.pretrained) / "unitweave.json").exists() for system in systems)
    if wanted and not earlier and language_code(wanted) not in run.targets:
        into = ", ".join(sorted(run.targets))
        raise InputError(f"translate.target_language: the corpus has translations into {into} (got {wanted!r})")


def check_source(corpus: CorpusSettings) -> None:
    """Raise InputError where the settings do not name one source of a corpus, or there is no such manifest."""
    if sum(source is not None for source in (corpus.manifest, corpus.embedded, corpus.synthesized)) != 1:
        raise InputError("corpus: name one source: 'manifest' (a corpus folder), 'embedded' or 'synthesized'")
    if corpus.manifest is not None and not (Path(corpus.manifest) / MANIFEST).exists():
        raise InputError(f"corpus.manifest {corpus.manifest}: no manifest there; make one with 'unitweave corpus'")


def _check_planned_corpus(recipe: Recipe) -> None:
    """Raise InputError for what the corpus that is not made yet will lack."""
    check_source(recipe.corpus)
    if made := recipe.corpus.embedded or recipe.corpus.synthesized:
        _check_splits(recipe, {"train"} | {split for split in ("dev", "test") if getattr(made, split)})
        return
    pairs = read_manifest(Path(str(recipe.corpus.manifest)))
    if recipe.corpus.speak is None:
        check_corpus(recipe, pairs)
    _check_splits(recipe, set(pairs.column("split").unique().to_pylist()))


def expected_directions(corpus: CorpusSettings) -> set[tuple[str, str]]:
    """Source and target languages of the corpus that these settings make, where that can be known."""
    if made := corpus.embedded or corpus.synthesized:
        return set(made.pairs)
    return directions_of(read_manifest(Path(str(corpus.manifest))))


def directions_of(pairs: Manifest) -> set[tuple[str, str]]:
    """Source and target languages of the pairs of a corpus."""
    codes = (pairs.column(name).to_pylist() for name in ("src_lang", "tgt_lang"))
    return set(zip(*codes, strict=True))


def check_corpus(recipe: Recipe, pairs: Manifest) -> None:
    """Raise InputError where the corpus lacks what the recipe asks for, before anything is trained on it.

    Args:
        recipe: The recipe.
        pairs: All pairs of the corpus, or of one that it will be made from.
    """
    for name, system in recipe.systems.items():
        check_tasks(pairs, system.tasks, f"systems.{name}", extra_text=system.extra_text is not None)
        check_directions(directions_of(pairs), system.tasks)
        with error_prefix(f"systems.{name}.train_pairs"):
            train_subset(pairs, system.train_pairs)
    speaker = recipe.translate.speaker
    if recipe.vocoder.multi_speaker and not recipe.vocoder.from_elsewhere and speaker is not None:
        known = pairs.where(pc.equal(pairs.column("split"), "train")).column("speaker").unique().to_pylist()
        if speaker not in known:
            raise InputError(f"translate.speaker: no training recording is by {speaker!r}")


def check_frames(run: "Run", pairs: Manifest) -> None:
    """Raise InputError where an encoder is to be trained whose frames would be fewer than the codebook's units.

    Args:
        run: The run.
        pairs: All pairs of its corpus.
    """
    recipe, encoder = run.recipe, run.layout.name(run.layout.encoder)
    if recipe.units.tokenizer is not None or is_done_with(run.folder, encoder, recipe.encoder):
        return
    rate = initial_frame_rate(recipe.encoder)
    train = pairs.where(pc.equal(pairs.column("split"), "train"))
    seconds = sum(pc.sum(train.column(f"{side}_seconds")).as_py() or 0.0 for side in SIDES)
    if 0 < seconds * rate < recipe.codebook.num_units:
        raise InputError(
            f"codebook.num_units: the train split has {seconds:.1f} s of speech, about {seconds * rate:.0f} "
            f"frames, which cannot make {recipe.codebook.num_units} units; use more speech or fewer units"
        )


def check_references(recipe: Recipe, pairs: Manifest) -> None:
    """Raise InputError where a test utterance that will be translated and scored has no reference translation."""
    if not any(system.from_speech for system in recipe.systems.values()):
        return
    test = pairs.where(pc.and_(pc.equal(pairs.column("split"), "test"), pairs.column("src_audio").is_valid()))
    raw, normalized = (pc.fill_null(test.column(name), "") for name in ("tgt_text_raw", "tgt_text"))
    text = pc.utf8_trim_whitespace(pc.if_else(pc.equal(raw, ""), normalized, raw))
    missing = test.column("id").filter(pc.equal(text, "")).to_pylist()
    if missing:
        raise InputError(
            f"corpus: no reference translation (tgt_text) of the test utterance {missing[0]}, and {len(missing) - 1} "
            "more; scores need one of each: give it, or leave the utterance out of the test split"
        )


def _check_splits(recipe: Recipe, there: Collection[str]) -> None:
    """Raise InputError for a split that a stage of the recipe cannot do without."""
    aligns = recipe.units.tokenizer is None or recipe.units.alignments is None
    needed = [("dev", "encoder.eval_steps")] if recipe.encoder.eval_steps and aligns else []
    for name, system in recipe.systems.items():
        needed += [("train", f"systems.{name}")]
        needed += [("dev", "schedule.shape: 'adaptive'")] if system.schedule.shape == "adaptive" else []
        patient = system.evaluation.early_stopping_patience
        needed += [("dev", "evaluation.early_stopping_patience")] if patient else []
        needed += [("test", f"translating with systems.{name}")] if system.from_speech else []
    for split, what in needed:
        if split not in there:
            raise InputError(f"corpus: the {split} split has no pairs, which {what} needs")


def _units(run: "Run", due: _Due, wanted: bool) -> tuple[int, float]:
    """The size of the codebook and the units a second, which those that are there say, or the settings."""
    recipe, layout = run.recipe, run.layout
    counted = recipe.units.in_fingerprint()
    there = is_done(run.folder, layout.name(layout.units))
    if not wanted or (there and "import" in read_stage(run.folder, layout.name(layout.units))["settings"]):
        known = read_units_metadata(layout.units) if there else None
        return (int(known["num_units"]), units_per_second(known)) if known else (recipe.codebook.num_units, FRAME_RATE)
    by_encoder = recipe.units.tokenizer is None or recipe.units.alignments is None
    layer = recipe.codebook.layer if recipe.units.tokenizer is None else 1
    num_units, frame_rate = recipe.codebook.num_units, float(FRAME_RATE)
    if by_encoder and (due(layout.encoder, recipe.encoder) or due(layout.units, counted)):
        with error_prefix("encoder.pretrained"):
            if recipe.encoder.pretrained is not None:
                check_reachable(recipe.encoder.pretrained)
        if recipe.encoder.pretrained is None:
            check_layer(layer, recipe.encoder.shape.num_hidden_layers)
            rate = float(FRAME_RATE)
        else:
            rate = check_initial_encoder(recipe.encoder, layer)
        frame_rate = rate if recipe.units.tokenizer is None else frame_rate
    if recipe.units.tokenizer is not None and due(layout.units, counted):
        folder = recipe.units.alignments
        if folder is not None and not any((Path(folder) / side).is_dir() for side in SIDES):
            raise InputError(f"units.alignments {folder}: must be a folder of word times in src/ and tgt/")
        tokenizer = configured_tokenizer(recipe.units)
        num_units, frame_rate = tokenizer.num_units, tokenizer.frame_rate
    return num_units, frame_rate


def _check_vocoder(recipe: Recipe, speaking: Sequence[LmSettings], num_units: int, frame_rate: float) -> None:
    """Raise InputError for a vocoder that the run's units, systems or voice could not be spoken with."""
    settings, speaker = recipe.vocoder, recipe.translate.speaker
    check_vocoder_exists(settings)
    if not settings.from_elsewhere:
        timing(frame_rate, settings.sample_rate)
        check_shared_batch(settings)
        if speaker is not None and not settings.multi_speaker:
            raise InputError(f"translate.speaker: the vocoder has a single voice, no speaker {speaker!r}")
        return
    vocoder = named_vocoder(settings, num_units, frame_rate)
    with error_prefix("translate"):
        vocoder.speaker_index(speaker)
    if any(system.deduplicate for system in speaking) and not vocoder.predicts_durations:
        raise InputError("lm.deduplicate: the vocoder takes repeated units; it has no duration predictor")
