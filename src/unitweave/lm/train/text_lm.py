"""Training the small text language model from scratch.

It learns from text alone: sentences of every language, and pairs of a sentence and its translation.
"""

from collections.abc import Sequence
from pathlib import Path

from transformers import set_seed

from unitweave.config.lm import TextLmSettings
from unitweave.core.errors import InputError
from unitweave.core.stage import StageResult
from unitweave.lm.data.text import MultilingualSentence, TextDataset
from unitweave.lm.model.small import new_llama, train_tokenizer
from unitweave.lm.train.fit import fit, save_model
from unitweave.training.trainer import quiet_transformers


def train_text_lm(folder: Path, settings: TextLmSettings, sentences: Sequence[MultilingualSentence]) -> StageResult:
    """Train tokenizer and model, going on from the last checkpoint after an interruption; writes folder/model.

    Args:
        folder: The stage's folder.
        settings: Shape and training of the model.
        sentences: Normalized text.

    Returns:
        Counts of sentences, parameters and tokens.

    Raises:
        InputError: There are no sentences.
    """
    quiet_transformers()
    if not sentences:
        raise InputError("text_lm: the corpus has no text to train the small language model on")
    training = settings.training
    tokenizer = train_tokenizer([text for s in sentences for text in s.texts], settings.shape.vocab_size)
    set_seed(training.seed)
    model = new_llama(settings.shape, len(tokenizer))
    dataset = TextDataset(sentences, tokenizer, training.batch_size, training.seed, settings.copy_task_steps)
    state, _ = fit(model, dataset, training, folder, "text LM: training")
    save_model(folder / "model", model, tokenizer, state)
    parameters = sum(p.numel() for p in model.parameters())
    counts = {"sentences": len(sentences), "parameters": parameters, "vocabulary": len(tokenizer)}
    return StageResult(counts=counts, obsolete=(folder / "checkpoints",))
