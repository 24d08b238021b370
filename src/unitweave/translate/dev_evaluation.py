"""The dev split decoded in the midst of training: BLEU of the text, word error rate of the transcripts, examples."""

import json
from collections.abc import Mapping, Sequence
from pathlib import Path

from accelerate import PartialState
from accelerate.utils import gather_object
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from unitweave.config.lm import EvaluationSettings
from unitweave.config.translate import DecodingSettings
from unitweave.core.layout import DEV_FILE
from unitweave.core.manifest import Pair, read_manifest
from unitweave.core.natural import clean_text, comparable_text
from unitweave.core.progress import echo
from unitweave.core.sequences import evenly_spaced
from unitweave.lm.data.dataset import running_text
from unitweave.lm.model.vocabulary import Vocabulary
from unitweave.lm.train.fit import EvaluatorFactory
from unitweave.lm.train.logs import trim_log
from unitweave.metrics.bleu import bleu
from unitweave.metrics.error_rates import word_error_rate
from unitweave.translate.decode import ForcedPrefix, PhaseDecoder, Translation
from unitweave.units.dataset import UnitRow, read_units


def choose(pairs: Sequence[Pair], count: int) -> list[Pair]:
    """`count` pairs that have all that is needed, taken in turn from each language pair, evenly over each."""
    groups: dict[tuple[str, str], list[Pair]] = {}
    for pair in pairs:
        if pair.src_text and pair.tgt_text:
            groups.setdefault((pair.src_lang, pair.tgt_lang), []).append(pair)
    chosen = []
    for number, key in enumerate(sorted(groups)):
        group = groups[key]
        chosen += evenly_spaced(group, count // len(groups) + (number < count % len(groups)))
    return chosen


def dev_evaluator(corpus: Path, settings: EvaluationSettings) -> EvaluatorFactory:
    """What `train_lm` takes to decode a part of the dev split of `corpus` during the training.

    What it returns makes a `DevSet`, or None, with a line that says why, where there is nothing to decode.
    """

    def make(
        folder: Path,
        units: Path,
        tokenizer: PreTrainedTokenizerBase,
        vocabulary: Vocabulary,
    ) -> DevSet | None:
        if not vocabulary.has_texts:
            echo(f"the dev split is not decoded: a model trained on {', '.join(vocabulary.tasks)} writes no texts")
            return None
        pairs = read_manifest(corpus, "dev")
        if not pairs:
            echo("the dev split is not decoded: the corpus has none")
            return None
        rows = read_units(units, pairs.column("id"), ("src",))
        dev = DevSet(pairs, rows, tokenizer, vocabulary, settings, folder)
        return dev if dev.pairs else None

    return make


class DevSet:
    """A part of the dev split and what it is to become; each process decodes its share."""

    def __init__(
        self,
        pairs: Sequence[Pair],
        rows: Mapping[tuple[str, str], UnitRow],
        tokenizer: PreTrainedTokenizerBase,
        vocabulary: Vocabulary,
        settings: EvaluationSettings,
        folder: Path,
    ) -> None:
        usable = [pair for pair in pairs if (pair.id, "src") in rows]
        self.pairs = choose(usable, settings.utterances)
        self.rows, self.tokenizer, self.vocabulary, self.settings = rows, tokenizer, vocabulary, settings
        self.path = folder / DEV_FILE

    def __call__(self, model: PreTrainedModel, step: int) -> dict[str, float]:
        """Scores of an ordinary causal LM by name, for all and for each language pair.

        They are written to dev.jsonl with the examples, and printed.
        """
        state = PartialState()
        mine = self.pairs[state.process_index :: state.num_processes]
        decoder = PhaseDecoder(model, self.tokenizer, self.vocabulary)
        settings = DecodingSettings(batch_size=self.settings.batch_size, text_only=True)
        prefixes = [ForcedPrefix(target_language=pair.tgt_lang) for pair in mine]
        translations = decoder.translate([self.rows[pair.id, "src"].units for pair in mine], settings, prefixes)
        found = {
            pair.id: translation for pair, translation in gather_object(list(zip(mine, translations, strict=True)))
        }
        natural = self.vocabulary.texts == "natural"
        scores = dev_scores(self.pairs, [found[pair.id] for pair in self.pairs], natural)
        if self.vocabulary.task == "asr":
            scores = {name: score for name, score in scores.items() if name.startswith("wer")}
        if state.is_main_process:
            self._report(step, scores, [(pair, found[pair.id]) for pair in self.pairs[: self.settings.examples]])
        return {f"eval_{name}": score for name, score in scores.items()}

    def _report(self, step: int, scores: dict[str, float], examples: list[tuple[Pair, Translation]]) -> None:
        echo(f"step {step}, dev: " + ", ".join(f"{name} {score:.1f}" for name, score in scores.items()))
        texts = self.vocabulary.texts
        shown = [
            {
                "id": pair.id,
                "source": running_text(str(pair.src_text), pair.src_text_raw, texts),
                "transcript": translation.transcript,
                "reference": running_text(str(pair.tgt_text), pair.tgt_text_raw, texts),
                "translation": translation.translation,
            }
            for pair, translation in examples
        ]
        for one in shown:
            echo(f"  {one['source']} → {one['transcript']}\n  {one['reference']} → {one['translation']}")
        trim_log(self.path, step - 1)  # a training that resumed before this step wrote them already
        with self.path.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"step": step} | scores | {"examples": shown}, ensure_ascii=False) + "\n")


def dev_scores(pairs: Sequence[Pair], translations: Sequence[Translation], natural: bool = False) -> dict[str, float]:
    """bleu (text, sacrebleu 13a) and wer (transcript, percent), and both for each language pair where several.

    Both are of normalized text; a model of natural text has its cased and punctuated bleu as natural_bleu besides.
    """
    groups: dict[str, list[int]] = {}
    for i, pair in enumerate(pairs):
        groups.setdefault(f"{pair.src_lang}-{pair.tgt_lang}", []).append(i)
    scores = _scores(pairs, translations, range(len(pairs)), "", natural)
    if len(groups) > 1:
        for name in sorted(groups):
            scores |= _scores(pairs, translations, groups[name], f"_{name}", natural)
    return scores


def _scores(
    pairs: Sequence[Pair], translations: Sequence[Translation], chosen: Sequence[int], suffix: str, natural: bool
) -> dict[str, float]:
    some, outputs = [pairs[i] for i in chosen], [translations[i] for i in chosen]
    texts = [comparable_text(t.translation, p.tgt_lang, natural) for p, t in zip(some, outputs, strict=True)]
    transcripts = [comparable_text(t.transcript, p.src_lang, natural) for p, t in zip(some, outputs, strict=True)]
    score, _ = bleu(texts, [str(pair.tgt_text) for pair in some], samples=0)
    errors = word_error_rate(transcripts, [str(pair.src_text) for pair in some], samples=0)
    scores = {f"bleu{suffix}": score.score, f"wer{suffix}": errors.score}
    if natural and all(pair.tgt_text_raw for pair in some):
        wanted = [clean_text(str(pair.tgt_text_raw)) for pair in some]
        cased, _ = bleu([t.translation for t in outputs], wanted, samples=0, language=some[0].tgt_lang)
        scores[f"natural_bleu{suffix}"] = cased.score
    return scores
