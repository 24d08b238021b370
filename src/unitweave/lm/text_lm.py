"""A small text language model, which stands in for the text LLM that the method starts from.

It has its own byte-level BPE tokenizer and is trained from scratch on text alone: sentences of every
language, and pairs of a sentence and its translation, one after the other.
"""

from collections.abc import Sequence
from pathlib import Path
from random import Random

import numpy as np
from accelerate import PartialState
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerBase, PreTrainedTokenizerFast, set_seed

from unitweave.config.lm import SmallLm, TextLmSettings
from unitweave.core.errors import InputError
from unitweave.core.files import atomic_path
from unitweave.core.stage import StageResult
from unitweave.interleaving.sequence import NONE, SOURCE, TrainingSequence
from unitweave.lm.data.dataset import WordTokens
from unitweave.lm.data.stream import UtteranceSampler
from unitweave.lm.train.trainer import fit
from unitweave.training.trainer import quiet_transformers

_COPY_TASK_RATIO = 0.1  # share of such sequences after the first `copy_task_steps`
_BEGIN, _END = "<|begin_of_text|>", "<|end_of_text|>"


def train_tokenizer(texts: Sequence[str], size: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer, in which a word carries the space before it."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=size,
        special_tokens=[_BEGIN, _END],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator((" " + text for text in texts), trainer)
    return PreTrainedTokenizerFast(tokenizer_object=bpe, bos_token=_BEGIN, eos_token=_END, pad_token=_END)


def new_llama(shape: SmallLm, vocabulary: int) -> LlamaForCausalLM:
    """A small LlamaForCausalLM with random weights and tied embeddings."""
    return LlamaForCausalLM(
        LlamaConfig(
            vocab_size=vocabulary,
            hidden_size=shape.hidden_size,
            num_hidden_layers=shape.num_hidden_layers,
            num_attention_heads=shape.num_attention_heads,
            num_key_value_heads=shape.num_attention_heads,
            intermediate_size=shape.intermediate_size,
            max_position_embeddings=4096,
            tie_word_embeddings=True,
            bos_token_id=0,
            eos_token_id=1,
        )
    )


class TextDataset:
    """Steps of text: a sentence and its translation, or one alone; a pure function of (seed, step)."""

    def __init__(
        self,
        sentences: Sequence[dict[str, str]],
        tokenizer: PreTrainedTokenizerBase,
        batch: int,
        seed: int,
        copy_task_steps: int = 0,
    ) -> None:
        self.sentences, self.batch, self.seed, self.copy_task_steps = sentences, batch, seed, copy_task_steps
        self.vocabulary = len(tokenizer)
        self.tokens = WordTokens(tokenizer)
        self.order = UtteranceSampler([range(len(sentences))], seed)
        self.begin, self.end = tokenizer.bos_token_id, tokenizer.eos_token_id
        self.line = tokenizer("\n", add_special_tokens=False)["input_ids"]

    def sequences(self, step: int) -> list[TrainingSequence]:
        """The sequences of an optimizer step; all tokens count as one segment."""
        result = []
        for position in range(step * self.batch, (step + 1) * self.batch):
            rng = Random((self.seed << 64) + position)
            sentence = self.sentences[self.order[position]]
            languages = sorted(set(sentence) - {"en"})
            pair = [rng.choice(languages), "en"]
            if step < self.copy_task_steps or rng.random() < _COPY_TASK_RATIO:
                result.append(self._drill(rng))
                continue
            if rng.random() < 0.1:
                pair = [rng.choice(pair)]
            ids: list[int] = [self.begin]
            for language in pair:
                ids += [*self.tokens.text(sentence[language]).tolist(), *self.line]
            ids[-1:] = [self.end]
            result.append(TrainingSequence(np.array(ids, dtype=np.int32), np.full(len(ids), SOURCE, dtype=np.uint8)))
        return result

    def _drill(self, rng: Random) -> TrainingSequence:
        """Random tokens, said twice: the second time they are known only from looking back."""
        once = [rng.randrange(self.vocabulary) for _ in range(rng.randint(8, 16))]
        ids = [self.begin, *once, *self.line, *once, self.end]
        segments = np.full(len(ids), SOURCE, dtype=np.uint8)
        segments[: len(once) + 2] = NONE
        return TrainingSequence(np.array(ids, dtype=np.int32), segments)


def train_text_lm(folder: Path, settings: TextLmSettings, sentences: Sequence[dict[str, str]]) -> StageResult:
    """Train tokenizer and model on `sentences` (language -> normalized text); writes folder/model.

    Goes on from the last checkpoint in `folder` after an interruption.
    """
    quiet_transformers()
    if not sentences:
        raise InputError("there is no text to train the small language model on")
    tokenizer = train_tokenizer([text for s in sentences for text in s.values()], settings.shape.vocab_size)
    set_seed(settings.training.seed)
    model = new_llama(settings.shape, len(tokenizer))
    source = TextDataset(
        sentences, tokenizer, settings.training.batch_size, settings.training.seed, settings.copy_task_steps
    )
    state = fit(model, source, settings.training, folder, "text LM: training")
    if PartialState().is_main_process:
        with atomic_path(folder / "model") as temporary:
            model.save_pretrained(temporary, state_dict=state)
            tokenizer.save_pretrained(temporary)
    PartialState().wait_for_everyone()
    parameters = sum(p.numel() for p in model.parameters())
    counts = {"sentences": len(sentences), "parameters": parameters, "vocabulary": len(tokenizer)}
    return StageResult(counts=counts, obsolete=(folder / "checkpoints",))
