"""A trained language model of units, step by step: prompts, one step of a batch, and tokens read back."""

from collections.abc import Sequence
from pathlib import Path
from typing import Self

import numpy as np
import torch
from transformers import DynamicCache, PreTrainedModel, PreTrainedTokenizerBase

from unitweave.config.interleave import FROM_SPEECH
from unitweave.core.errors import InputError
from unitweave.core.sequences import deduplicate
from unitweave.lm.model.vocabulary import Vocabulary
from unitweave.translate.constraints import TRANSCRIPT, TRANSLATION, UNITS, Constraints, Translation
from unitweave.translate.engines import load_language_model
from unitweave.translate.graphs import FixedCache, StepGraphs
from unitweave.translate.output_layer import PhaseOutputLayer, use_phase_output_layer
from unitweave.translate.prefix_cache import PrefixCache, padded, reuse


class UnitLanguageModel:
    """A trained language model with its tokenizer, its vocabulary of units, and what that allows in each phase."""

    def __init__(self, model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase, vocabulary: Vocabulary) -> None:
        self.model, self.tokenizer, self.vocabulary = model.eval(), tokenizer, vocabulary
        rows = self.model.config.get_text_config().vocab_size  # peft's wrapper of the output layer does not say it
        self.constraints = Constraints(vocabulary, tokenizer, rows, self.model.device)
        self._output_layer: PhaseOutputLayer | None = None
        self._graphs: StepGraphs | None = None

    @classmethod
    def load(
        cls,
        folder: Path | str,
        device: str | torch.device = "cpu",
        dtype: torch.dtype = torch.float32,
        engine: str | None = None,
    ) -> Self:
        """From a model folder that `train_lm` or `export_run` wrote; `engine` is as in `load_language_model`.

        Raises:
            InputError: It is not such a folder, or none of the tasks that it was trained on begins with speech.
        """
        vocabulary = Vocabulary.load(Path(folder))
        if vocabulary.task is None:
            raise InputError(
                f"{folder}: trained only on {', '.join(vocabulary.tasks)}, this model takes no speech; "
                f"train it on one of {', '.join(FROM_SPEECH)}"
            )
        loaded = cls(*load_language_model(Path(folder), device, dtype, engine), vocabulary)
        loaded._output_layer = layer = use_phase_output_layer(loaded.model, loaded.constraints.tokens()[UNITS])
        loaded._graphs = StepGraphs.that_work(loaded.model, layer and layer.narrow)
        return loaded

    def prompt(self, units: np.ndarray) -> list[int]:
        """Token ids up to where the model begins its transcript (or its units, where it has no texts).

        Raises:
            InputError: A unit is outside the model's codebook.
        """
        v = self.vocabulary
        if len(units) and int(units.max()) >= v.num_units:
            raise InputError(f"unit {int(units.max())} is outside the model's codebook of {v.num_units} units")
        begin = [] if v.begin is None else [v.begin]
        if v.deduplicate:
            units, _ = deduplicate(units)
        body = (units.astype(np.int64) + v.unit_offset).tolist()
        return [*begin, v.markers["source"], *body, v.markers["transcript" if v.has_texts else "target"]]

    def begin(
        self,
        sources: Sequence[np.ndarray],
        decoded: Sequence[Sequence[int]] | None = None,
        kept: Sequence[PrefixCache | None] | None = None,
        graphs: bool = False,
    ) -> tuple[torch.Tensor, torch.Tensor, DynamicCache]:
        """Begin a batch.

        Args:
            sources: Units [frames] of each source.
            decoded: Tokens of an earlier call, which follow each prompt.
            kept: What earlier calls have computed for each.
            graphs: Whether the batch goes on token by token and no row is repeated, so that CUDA graphs can take it on.

        Returns:
            The prompts as far as they have to be computed, int64 [batch, tokens], padded on the left; the attention
            mask of the cache and them; the cache.
        """
        prompts = [
            [*self.prompt(units), *more] for units, more in zip(sources, decoded or [()] * len(sources), strict=True)
        ]
        cache, counts = reuse(self.model.config, prompts, kept or [None] * len(prompts))
        device = self.model.device
        _, known = padded([[1] * count for count in counts], device)
        ids, mask = padded([prompt[count:] for prompt, count in zip(prompts, counts, strict=True)], device)
        if graphs and kept is None and self._graphs is not None:
            cache = self._graphs.cache(*ids.shape) or cache
        return ids, torch.cat([known, mask], dim=1), cache

    def step(
        self,
        ids: torch.Tensor,
        mask: torch.Tensor,
        positions: torch.Tensor,
        cache: DynamicCache,
        phases: Sequence[int] = (),
        logits_to_keep: int = 1,
    ) -> torch.Tensor:
        """One step of a batch.

        Args:
            ids: int64 [batch, tokens], which the cache takes in.
            mask: int64 [batch, tokens in the cache and these]; 0 is padding.
            positions: int64 [batch, tokens].
            cache: Grows by the tokens.
            phases: The phase of each row, where it is known; a row that says units gets no other logits.
            logits_to_keep: After how many of the last tokens the logits are wanted.

        Returns:
            Logits [batch, logits_to_keep, vocabulary] of the tokens after the last `ids`.
        """
        units = [phase == UNITS for phase in phases]
        if isinstance(cache, FixedCache) and ids.shape[1] == 1 and cache.get_seq_length():
            return cache.graphs.step(ids, mask, positions, cache, units)[:, None]
        if self._output_layer is not None:
            self._output_layer.narrow(units)
        output = self.model(
            input_ids=ids,
            attention_mask=mask,
            position_ids=positions,
            past_key_values=cache,
            use_cache=True,
            logits_to_keep=logits_to_keep,
        )
        return output.logits

    def read(self, tokens: Sequence[int]) -> Translation:
        """Take the tokens of one utterance apart: language, texts and units."""
        v = self.vocabulary
        if not v.has_texts:
            return Translation(units=np.array([t - v.unit_offset for t in tokens if t != v.markers["end"]], np.int64))
        names = {i: language for language, i in v.languages.items()}
        first = tokens.index(int(self.constraints.closing[TRANSCRIPT]))
        if v.task == "asr":
            return Translation(language=names[tokens[0]], transcript=self.tokenizer.decode(tokens[1:first]).strip())
        second = tokens.index(int(self.constraints.closing[TRANSLATION]))
        units = [t - v.unit_offset for t in tokens[second + 1 :] if t != v.markers["end"]]
        return Translation(
            language=names[tokens[0]],
            target_language=names[tokens[first + 1]],
            transcript=self.tokenizer.decode(tokens[1:first]).strip(),
            translation=self.tokenizer.decode(tokens[first + 2 : second]).strip(),
            units=np.array(units, dtype=np.int64),
        )
