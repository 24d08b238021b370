"""A small text language model, which stands in for the text LLM that the method starts from."""

from collections.abc import Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

from unitweave.config.lm import SmallLm

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
