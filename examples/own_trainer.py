"""Scheduled interleaving inside your own transformers Trainer, with units and word boundaries of your own.

python examples/own_trainer.py MODEL OUT: MODEL is any causal language model. Replace `my_speech` by your data.
"""

import sys
from collections.abc import Iterator
from random import Random

import numpy as np
import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, Trainer, TrainingArguments

import unitweave as uw

STEPS, BATCH, NUM_UNITS = 20, 4, 100


def my_speech(words: str, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Stands for your tokenizer and aligner: units [frames], and the first and the end frame of each word."""
    ends = np.cumsum(rng.integers(5, 20, size=len(words.split())))
    return rng.integers(0, NUM_UNITS, size=ends[-1]), np.append(0, ends[:-1]), ends


class Interleaved(torch.utils.data.IterableDataset):
    """Training sequences in the order of the optimizer steps, each with the text ratio of its step."""

    def __init__(self, examples: list[uw.Example], markers: uw.Markers) -> None:
        self.examples, self.markers = examples, markers
        self.ratio = uw.text_ratio(uw.ScheduleSettings(start=0.9, decrement=0.3, stair_steps=5), STEPS)

    def __iter__(self) -> Iterator[torch.Tensor]:
        rng, settings = Random(1), uw.InterleaveSettings()
        for number in range(STEPS * BATCH):
            ratio = self.ratio(number // BATCH)  # BATCH counts all processes and accumulated batches
            example = self.examples[number % len(self.examples)]
            yield torch.from_numpy(uw.interleave(example, "s2st", ratio, settings, self.markers, rng).ids).long()


def collate(rows: list[torch.Tensor]) -> dict[str, torch.Tensor]:
    """Rows padded to one length; padding is behind everything, so causal attention needs no mask for it."""
    ids = torch.nn.utils.rnn.pad_sequence(rows, batch_first=True, padding_value=-100)
    return {"input_ids": ids.clamp(min=0), "labels": ids}


def main(name: str, out: str) -> None:
    tokenizer, model = AutoTokenizer.from_pretrained(name), AutoModelForCausalLM.from_pretrained(name)
    vocabulary = uw.extend_tokenizer(tokenizer, NUM_UNITS, ["es", "en"], codebook="my-units")
    uw.extend_model(model, vocabulary, seed=1)
    tokens, rng = uw.WordTokens(tokenizer), np.random.default_rng(1)

    def side(words: str) -> uw.Speech:
        units, starts, ends = my_speech(words, rng)
        sure = np.ones(len(starts))  # how certain the alignment of each word is
        ids = units + vocabulary.unit_offset
        return uw.prepare_speech(ids, starts, ends, sure, tokens(words.split()), uw.InterleaveSettings())

    def text(language: str, words: str) -> np.ndarray:
        return np.append(np.int32(vocabulary.languages[language]), tokens.text(words))

    pairs = [
        ("el perro duerme", "the dog sleeps"),
        ("una casa roja", "a red house"),
        ("hay un tren", "there is a train"),
    ]
    examples = [uw.Example(side(es), side(en), text("es", es), text("en", en)) for es, en in pairs]
    arguments = TrainingArguments(
        out, max_steps=STEPS, per_device_train_batch_size=BATCH, report_to=[], save_steps=STEPS
    )
    data = Interleaved(examples, vocabulary.sequence_markers)
    Trainer(model, arguments, train_dataset=data, data_collator=collate).train()
    model.save_pretrained(out)  # with the next two lines, `uw.PhaseDecoder.load(out)` translates units
    tokenizer.save_pretrained(out)
    vocabulary.save(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
