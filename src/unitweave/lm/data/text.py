"""Training sequences of text alone, for the small text language model."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from random import Random

import numpy as np
from transformers import PreTrainedTokenizerBase

from unitweave.interleaving.sequence import NONE, SOURCE, TrainingSequence
from unitweave.lm.data.sampler import UtteranceSampler
from unitweave.lm.data.tokens import WordTokens

_COPY_TASK_RATIO = 0.1  # fraction of such sequences after the first `copy_task_steps`
_ALONE_RATIO = 0.1  # fraction of the sentences that come without their translation


@dataclass(frozen=True)
class MultilingualSentence:
    """A sentence in the languages that it is translated from, and in those that it is translated into."""

    sources: Mapping[str, str]
    targets: Mapping[str, str]

    @property
    def texts(self) -> list[str]:
        """All of its texts."""
        return [*self.sources.values(), *self.targets.values()]


class TextDataset:
    """Steps of text: a sentence and its translation, or one alone; a pure function of (seed, step)."""

    def __init__(
        self,
        sentences: Sequence[MultilingualSentence],
        tokenizer: PreTrainedTokenizerBase,
        batch_size: int,
        seed: int,
        copy_task_steps: int = 0,
    ) -> None:
        """See the class.

        Args:
            sentences: Normalized text.
            tokenizer: With begin and end of text.
            batch_size: Sequences per optimizer step.
            seed: Of the order and of all that is drawn.
            copy_task_steps: First optimizer steps, which have the copy task alone.
        """
        self.sentences, self.batch_size, self.seed = sentences, batch_size, seed
        self.copy_task_steps = copy_task_steps
        self.vocab_size = len(tokenizer)
        self.tokens = WordTokens(tokenizer)
        self.sampler = UtteranceSampler([range(len(sentences))], seed)
        self.begin, self.end = tokenizer.bos_token_id, tokenizer.eos_token_id
        self.newline = tokenizer("\n", add_special_tokens=False)["input_ids"]

    def sequences(self, step: int) -> list[TrainingSequence]:
        """The sequences of an optimizer step; all tokens count as one segment."""
        positions = range(step * self.batch_size, (step + 1) * self.batch_size)
        return [self._sequence(step, position) for position in positions]

    def _sequence(self, step: int, position: int) -> TrainingSequence:
        rng = Random((self.seed << 64) + position)
        sentence = self.sentences[self.sampler[position]]
        targets = sorted(sentence.targets)
        target = rng.choice(targets) if len(targets) > 1 else targets[0]
        texts = [sentence.sources[rng.choice(sorted(sentence.sources))], sentence.targets[target]]
        if step < self.copy_task_steps or rng.random() < _COPY_TASK_RATIO:
            return self._copy_task(rng)
        if rng.random() < _ALONE_RATIO:
            texts = [rng.choice(texts)]
        ids: list[int] = [self.begin]
        for text in texts:
            ids += [*self.tokens.text(text).tolist(), *self.newline]
        ids[-1:] = [self.end]
        return TrainingSequence(np.array(ids, dtype=np.int32), np.full(len(ids), SOURCE, dtype=np.uint8))

    def _copy_task(self, rng: Random) -> TrainingSequence:
        """Random tokens, twice: the second time they can be predicted only by looking back."""
        once = [rng.randrange(self.vocab_size) for _ in range(rng.randint(8, 16))]
        ids = [self.begin, *once, *self.newline, *once, self.end]
        segments = np.full(len(ids), SOURCE, dtype=np.uint8)
        segments[: len(once) + 2] = NONE  # the first time they are random, and nothing is to be learned from them
        return TrainingSequence(np.array(ids, dtype=np.int32), segments)
