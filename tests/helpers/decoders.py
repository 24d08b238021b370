"""A tiny decoder of random weights."""

from pathlib import Path

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer

from unitweave.lm.model.vocabulary import extend_model, extend_tokenizer
from unitweave.translate.decode import PhaseDecoder
from unitweave.translate.step_attention import use_step_attention

UNITS_IN_BOOK = 24


def random_decoder(text_lm_folder: Path, device: str = "cpu") -> PhaseDecoder:
    """One whose weights are so large that its choices differ."""
    torch.manual_seed(3)
    tokenizer = AutoTokenizer.from_pretrained(text_lm_folder)
    model = AutoModelForCausalLM.from_pretrained(text_lm_folder, dtype=torch.float32)
    vocabulary = extend_tokenizer(tokenizer, UNITS_IN_BOOK, ["en", "es"], "book")
    extend_model(model, vocabulary, seed=1)
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    model.to(device)
    use_step_attention(model)
    return PhaseDecoder(model, tokenizer, vocabulary)
