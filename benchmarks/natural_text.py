"""What a pretrained LLM makes of natural and of normalized text: `python benchmarks/natural_text.py MODEL RUN|TABLE`.

Before any training on speech, the model translates sentences after eight examples: those of a run's dev split, or
as many rows of a TSV file with src_lang, tgt_lang, src_text, tgt_text (natural text). Both translations are normalized
for the score, so that they are comparable. The loss is that of the reference after the same examples.
"""

import argparse
import csv
import random
from pathlib import Path

import sacrebleu
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from unitweave.core.manifest import read_manifest
from unitweave.core.text import normalize

EXAMPLES, SENTENCES, BATCH = 8, 60, 20


def main(model: str, source: Path) -> None:
    """Print a row for each form of the text."""
    rows = sentences(source)
    tokenizer = AutoTokenizer.from_pretrained(model, padding_side="left")
    lm = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32).eval()
    source_lang, target_lang = rows[0][0], rows[0][1]
    print(
        "| text | text BLEU (normalized) | loss of the reference, nats a word | tokens a word |\n|---|---:|---:|---:|"
    )
    for form in ("natural", "normalized"):
        texts = [(s, t) if form == "natural" else (normalize(s, a), normalize(t, b)) for a, b, s, t in rows]
        shots = "".join(f"{source_lang}: {s}\n{target_lang}: {t}\n" for s, t in texts[:EXAMPLES])
        prompts = [f"{shots}{source_lang}: {s}\n{target_lang}:" for s, _ in texts[EXAMPLES:]]
        references = [t for _, t in texts[EXAMPLES:]]
        words = sum(len(normalize(t, target_lang).split()) for t in references)
        written = translate(lm, tokenizer, prompts)
        losses, tokens = zip(
            *(loss(lm, tokenizer, p, t) for p, t in zip(prompts, references, strict=True)), strict=True
        )
        bleu = sacrebleu.corpus_bleu(
            [normalize(t, target_lang) for t in written], [[normalize(t, target_lang) for t in references]]
        )
        print(f"| {form} | {bleu.score:.1f} | {sum(losses) / words:.2f} | {sum(tokens) / words:.2f} |")


def sentences(source: Path) -> list[tuple[str, str, str, str]]:
    """Languages and natural texts: eight examples, then the sentences to translate; always the same."""
    if source.is_dir():
        shots = random.Random(1).sample(list(read_manifest(source / "corpus", "train")), EXAMPLES)
        chosen = [*shots, *list(read_manifest(source / "corpus", "dev"))[:SENTENCES]]
        return [(p.src_lang, p.tgt_lang, str(p.src_text_raw), str(p.tgt_text_raw)) for p in chosen]
    with source.open(encoding="utf-8", newline="") as lines:
        table = list(csv.DictReader(lines, delimiter="\t"))
    chosen = random.Random(1).sample(table, EXAMPLES + SENTENCES)
    return [(r["src_lang"], r["tgt_lang"], r["src_text"], r["tgt_text"]) for r in chosen]


@torch.inference_mode()
def translate(lm: torch.nn.Module, tokenizer: AutoTokenizer, prompts: list[str]) -> list[str]:
    """The line that the model writes after each prompt."""
    written = []
    for first in range(0, len(prompts), BATCH):
        batch = tokenizer(prompts[first : first + BATCH], return_tensors="pt", padding=True)
        ids = lm.generate(**batch, max_new_tokens=32, do_sample=False)
        texts = tokenizer.batch_decode(ids[:, batch["input_ids"].shape[1] :], skip_special_tokens=True)
        written += [text.strip().split("\n")[0] for text in texts]
    return written


@torch.inference_mode()
def loss(lm: torch.nn.Module, tokenizer: AutoTokenizer, prompt: str, text: str) -> tuple[float, int]:
    """The loss of a text after its prompt, in nats, and the number of its tokens."""
    ids = tokenizer(f"{prompt} {text}\n", return_tensors="pt")["input_ids"]
    start = len(tokenizer(prompt)["input_ids"])
    log_probs = lm(ids).logits[0, start - 1 : -1].log_softmax(-1)
    return -float(log_probs.gather(1, ids[0, start:, None]).sum()), ids.shape[1] - start


if __name__ == "__main__":
    arguments = argparse.ArgumentParser()
    arguments.add_argument("model")
    arguments.add_argument("source", type=Path)
    given = arguments.parse_args()
    main(given.model, given.source)
