"""The model card of an exported model: README.md as the hub shows it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from huggingface_hub import EvalResult, ModelCardData

from unitweave import __version__
from unitweave.core.errors import InputError
from unitweave.core.files import write_text
from unitweave.core.languages import language_names
from unitweave.core.layout import RunLayout
from unitweave.core.manifest import Pair, read_manifest
from unitweave.core.markdown import markdown_table
from unitweave.score.scores import SCORES_FILE, Scores, SystemScores, read_scores
from unitweave.translate.package import INT8_WEIGHTS_FILE

if TYPE_CHECKING:
    from unitweave.lm.model.vocabulary import Vocabulary

_SHOWN = (("asr_bleu", "ASR-BLEU"), ("text_bleu", "text BLEU"), ("text_chrf", "text chrF"),
          ("transcript_wer", "transcript WER %"), ("agreement_wer", "agreement WER %"))  # fmt: skip


def write_card(
    path: Path,
    run: Path,
    system: str,
    recipe: Mapping[str, Any],
    about: Mapping[str, Any],
    license: str | None,
    title: str,
) -> None:
    """Write the card: data, scores with their signature, licenses, limits, intended use."""
    layout = RunLayout(run)
    scores = read_scores(layout.score) if (layout.score / SCORES_FILE).exists() else None
    pairs = _pairs(run)
    languages = sorted({code for p in pairs for code in (p.src_lang, p.tgt_lang)})
    from unitweave.lm.model.vocabulary import Vocabulary  # torch: not for an export that is refused

    vocabulary = Vocabulary.load(path.parent)
    merged = {**(recipe.get("lm") or {}), **((recipe.get("systems") or {}).get(system) or {})}
    base = merged.get("pretrained")
    row = scores.systems.get(system) if scores else None
    data = ModelCardData(
        library_name="unitweave",
        pipeline_tag="audio-to-audio",
        language=languages or sorted(vocabulary.languages),
        license=license or "other",
        base_model=base,
        tags=["speech-to-speech-translation", "speech-translation", "discrete-speech-units", "unitweave"],
        model_name=title,
        eval_results=_results(row, scores, pairs),
    )
    body = f"""---
{data.to_yaml()}
---
# {title}

Translates {language_names(vocabulary.sources) or "speech"} speech into {language_names(vocabulary.targets) or "other"}
speech. Trained with unitweave {__version__}:
a language model that reads discrete speech units, writes transcript and translation, and speaks units, which a
vocoder turns into a waveform. Method: scheduled interleaved speech-text training (arXiv 2506.10299).

## Use

```python
from unitweave.translate.translator import Translator

result = Translator.from_pretrained("{title}").translate("recording.wav"{_target(vocabulary, python=True)})
print(result.transcript, "->", result.translation)
result.save("translation.wav")
```

`unitweave translate {title} recording.wav{_target(vocabulary)} -o out/` does the same.{_plain_use(title, about)}

## What is inside

| part | folder | fingerprint of its weights |
| --- | --- | --- |
{_parts(about["fingerprints"])}

All weights are safetensors. The parts belong together: the vocoder and the language model know the units of this
codebook only, and the codebook belongs to this encoder.

## Training data

{_data(pairs, recipe)}

System `{system}`; base language model: {base or "a small one, trained from scratch on the corpus's text"}.

## Scores

{_scores(row, scores)}

## Intended use and limits

For research on speech translation, and for speech like that of the training data. It has not been tested on other
accents, noise, spontaneous or overlapping speech, and other domains than its corpus. It can leave out, invent or
change content, names and numbers above all, and gives no sign of it; do not rely on it where a mistake can do harm.
The voice is that of the training data, whoever speaks; it does not imitate the speaker.

## Licenses

{_licenses(recipe, base, license)}
"""
    write_text(path, body)


def _pairs(run: Path) -> Sequence[Pair]:
    try:
        return read_manifest(RunLayout(run).corpus)
    except InputError:
        return []


def _directions(pairs: Sequence[Pair]) -> list[tuple[str, str]]:
    return sorted({(p.src_lang, p.tgt_lang) for p in pairs})


def _target(vocabulary: "Vocabulary", python: bool = False) -> str:
    """The argument that names a target language, where a recording's language leaves a choice."""
    if all(len(vocabulary.targets_from(source)) < 2 for source in vocabulary.sources):
        return ""
    target = vocabulary.targets[-1]
    return f', target_language="{target}"' if python else f" --target-language {target}"


def _parts(fingerprints: Mapping[str, Any]) -> str:
    lm = ", ".join(f"`{digest}`" for digest in fingerprints["language_model"].values())
    rows = [f"| language model, tokenizer | . | {lm} |"]
    known = [name for name in ("encoder", "codebook", "vocoder") if name in fingerprints]
    rows += [f"| {name} | {name}/ | `{fingerprints[name]}` |" for name in known]
    return "\n".join(rows)


def _data(pairs: Sequence[Pair], recipe: Mapping[str, Any]) -> str:
    if not pairs:
        return "The corpus of this run was no longer there when it was exported."
    corpus = recipe.get("corpus") or {}
    kind = "made by speech engines from unitweave's phrasebook" if corpus.get("embedded") else "the user's own corpus"
    rows = []
    for source, target in _directions(pairs):
        training = [p for p in pairs if (p.src_lang, p.tgt_lang, p.split) == (source, target, "train")]
        hours = sum(p.src_seconds for p in training) / 3600, sum(p.tgt_seconds for p in training) / 3600
        rows.append((f"{source} to {target}", len(training), *(f"{part:.2f}" for part in hours)))
    table = markdown_table(["direction", "pairs (train)", "source hours", "target hours"], rows, "lr")
    return f"Speech: {kind}.\n\n{table}"


def _scores(row: SystemScores | None, scores: Scores | None) -> str:
    if row is None or scores is None:
        return "This system had not been scored when it was exported."
    values = [(name, f"{value:z.1f}") for key, name in _SHOWN if (value := row.score(key)) is not None]
    lines = [f"Test split, {row.utterances} utterances.", "", markdown_table(["measure", "score"], values, "lr")]
    lines += ["", f"Signature: `{scores.signature}`"]
    lines += [f"\n{note}" for note in scores.notes]
    return "\n".join(lines)


def _results(row: SystemScores | None, scores: Scores | None, pairs: Sequence[Pair]) -> list[EvalResult] | None:
    if row is None or scores is None or row.asr_bleu is None:
        return None
    languages = ", ".join(f"{source} to {target}" for source, target in _directions(pairs)) or "unknown languages"
    return [
        EvalResult(
            task_type="audio-to-audio",
            task_name="Speech-to-speech translation",
            dataset_type="unitweave",
            dataset_name=f"test split, {languages}",
            dataset_split="test",
            metric_type="asr-bleu",
            metric_name="ASR-BLEU",
            metric_value=round(row.asr_bleu.score, 2),
            metric_config=str(scores.signature),
        )
    ]


def _licenses(recipe: Mapping[str, Any], base: str | None, license: str | None) -> str:
    lines = [f"This model: {license or 'not stated by its maker'}. unitweave itself: Apache-2.0."]
    encoder = (recipe.get("encoder") or {}).get("pretrained")
    if base:
        lines.append(f"- The language model was fine-tuned from `{base}`, whose license still applies.")
    if encoder:
        lines.append(f"- The encoder was fine-tuned from `{encoder}`, whose license still applies.")
    if (recipe.get("corpus") or {}).get("embedded"):
        lines.append("- Training speech was made with eSpeak NG (GPL-3.0) and SVOX Pico "
                     "(Apache-2.0).")  # fmt: skip
    else:
        lines.append("- The license of the training corpus may put conditions on models made from it.")
    return "\n".join(lines)


def _plain_use(title: str, about: Mapping[str, Any]) -> str:
    """How to load the language model without unitweave; nothing for weights that only its int8 engine reads."""
    if INT8_WEIGHTS_FILE in about["fingerprints"]["language_model"]:
        return " The language model has integer weights, for unitweave's int8 engine on x86 CPUs."
    return (
        " The language model alone is an ordinary causal LM:\n"
        f'`transformers.AutoModelForCausalLM.from_pretrained("{title}")`.'
    )
