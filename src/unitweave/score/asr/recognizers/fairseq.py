"""fairseq's ASR-BLEU recognizer: wav2vec 2.0 CTC, for numbers comparable with published CVSS-C results."""

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from unitweave.core.sequences import collapse_ctc
from unitweave.score.asr import checkpoints

if TYPE_CHECKING:
    import torch


class Fairseq(checkpoints.CheckpointRecognizer):
    """fairseq's ASR-BLEU: wav2vec 2.0 CTC, greedy; hypothesis lower-cased, reference as it is.

    After examples/speech_to_speech/asr_bleu of fairseq: the waveform is normalized to zero mean and
    unit variance over its whole length, given to the model alone and without a mask; repeated
    tokens are merged, blanks dropped, "|" is the space, nothing else is touched. Where the tool
    means to mix stereo down but does not (it scores the left channel), unitweave mixes.
    """

    default_model = "facebook/wav2vec2-large-960h-lv60-self"

    def __init__(self, model: str, device: "torch.device") -> None:
        from transformers import AutoTokenizer, Wav2Vec2ForCTC

        tokenizer = checkpoints.load(AutoTokenizer, model)
        network = checkpoints.load(Wav2Vec2ForCTC, model)
        self._model = network.to(device).eval()
        self._device = device
        self._blank = tokenizer.pad_token_id
        self._tokens = tokenizer.convert_ids_to_tokens(range(network.config.vocab_size))
        self._space = "|" if "|" in self._tokens else " "
        self.signature = f"wav2vec2-ctc-greedy,{checkpoints.revision(model, network)}"

    @staticmethod
    def supported_languages(model: str) -> frozenset[str] | None:
        """English; of another checkpoint only its user knows."""
        return None if model else frozenset({"en"})

    def transcribe(self, waveforms: Sequence[np.ndarray], language: str = "en") -> list[str]:
        """Raw transcripts of float32 waveforms [samples] at 16 kHz, in their order, one at a time."""
        import torch

        texts = []
        for waveform in waveforms:
            samples = torch.from_numpy(np.pad(waveform, (0, max(0, 400 - len(waveform))))).float()[None]  # [1, samples]
            samples = torch.nn.functional.layer_norm(samples, samples.shape)
            with torch.inference_mode():
                logits = self._model(samples.to(self._device)).logits[0]  # [frames, tokens]
            texts.append(collapse(logits.argmax(-1).tolist(), self._tokens, self._blank, self._space))
        return texts

    def normalization(self, language: str) -> str:
        """fairseq's own."""
        return "fairseq: hypothesis lower-cased, reference as it is"

    def clean_hypothesis(self, text: str, language: str = "en") -> str:
        """Lower case, nothing else."""
        return text.strip().lower()

    def clean_reference(self, text: str, language: str = "en") -> str:
        """As it is: fairseq leaves the reference raw, case and punctuation included."""
        return text.strip()


def collapse(path: Sequence[int], tokens: Sequence[str], blank: int, space: str = "|") -> str:
    """The text of a CTC path [frames]: repeats merged, blanks dropped, tokens joined, `space` a space."""
    return "".join(tokens[token] for token in collapse_ctc(path, blank)).replace(space, " ").strip()
