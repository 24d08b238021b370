"""A text LLM as the translator of a cascade, by a prompt with a few examples: no fine-tuning, nothing but the model.

    FEW_SHOT_MODEL=gemma-3-270m PYTHONPATH=examples unitweave score RUN

with, in the recipe,

    score:
      cascades:
        whisper-gemma-pico:
          recognizer: {engine: whisper, model: whisper-base}
          translator: {engine: function, function: few_shot_translator:translate}
          speech: {engine: pico}
"""

import os
from collections.abc import Sequence
from functools import cache
from typing import Any

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

# The same sentences in each language; further languages are further columns.
EXAMPLES = {
    "en": [
        "Where were you last night?",
        "I don't believe a word of it.",
        "We have to leave before it gets dark, my friend.",
        "Give me the letter and nobody gets hurt.",
        "My brother says the old bridge is closed.",
    ],
    "es": [
        "¿Dónde estabas anoche?",
        "No me creo ni una palabra.",
        "Tenemos que irnos antes de que anochezca, amigo mío.",
        "Dame la carta y nadie saldrá herido.",
        "Mi hermano dice que el puente viejo está cerrado.",
    ],
    "fr": [
        "Où étais-tu hier soir ?",
        "Je n'en crois pas un mot.",
        "Nous devons partir avant la nuit, mon ami.",
        "Donne-moi la lettre et personne ne sera blessé.",
        "Mon frère dit que le vieux pont est fermé.",
    ],
    "de": [
        "Wo warst du gestern Abend?",
        "Ich glaube kein Wort davon.",
        "Wir müssen los, bevor es dunkel wird, mein Freund.",
        "Gib mir den Brief, und niemandem passiert etwas.",
        "Mein Bruder sagt, die alte Brücke ist gesperrt.",
    ],
    "it": [
        "Dov'eri ieri sera?",
        "Non credo a una parola.",
        "Dobbiamo andarcene prima che faccia buio, amico mio.",
        "Dammi la lettera e nessuno si farà male.",
        "Mio fratello dice che il vecchio ponte è chiuso.",
    ],
}
NAMES = {"en": "English", "es": "Spanish", "fr": "French", "de": "German", "it": "Italian"}
BATCH = 16


@cache
def load() -> tuple[Any, Any]:
    """The model and its tokenizer, padded on the left."""
    folder = os.environ.get("FEW_SHOT_MODEL", "gemma-3-270m")
    tokenizer = AutoTokenizer.from_pretrained(folder, padding_side="left")
    tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
    return AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval(), tokenizer


def prompt(text: str, source: str, target: str) -> str:
    """The examples, and the sentence after them."""
    pairs = [*zip(EXAMPLES[source], EXAMPLES[target], strict=True), (text, "")]
    return "\n\n".join(f"{NAMES[source]}: {a}\n{NAMES[target]}: {b}" for a, b in pairs).rstrip()


@torch.inference_mode()
def translate(texts: Sequence[str], source: str, target: str) -> list[str]:
    """The first line that the model writes after each prompt, greedily."""
    model, tokenizer = load()
    made: list[str] = []
    for first in range(0, len(texts), BATCH):
        prompts = [prompt(text, source, target) for text in texts[first : first + BATCH]]
        inputs = tokenizer(prompts, return_tensors="pt", padding=True)
        longest = max(len(tokenizer(text)["input_ids"]) for text in texts[first : first + BATCH])
        output = model.generate(
            **inputs,
            max_new_tokens=2 * longest + 8,
            do_sample=False,
            pad_token_id=tokenizer.pad_token_id,
            tokenizer=tokenizer,
        )
        for tokens in output[:, inputs["input_ids"].shape[1] :]:
            lines = tokenizer.decode(tokens, skip_special_tokens=True).strip().splitlines()
            made.append(lines[0] if lines else "")
    return made
