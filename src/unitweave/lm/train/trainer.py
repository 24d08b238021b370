"""transformers' Trainer over the step-exact stream of packed batches."""

import json
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
from accelerate.utils import broadcast_object_list
from transformers import TrainingArguments

from unitweave.interleaving.sequence import SEGMENTS
from unitweave.lm.data.packing import IGNORED
from unitweave.lm.data.stream import PackedDataset
from unitweave.lm.train.attention import BUCKET_INPUTS, FLASH_INPUTS, flash_fits, flash_works
from unitweave.lm.train.logs import Throughput
from unitweave.training.checkpoints import CheckpointedTrainer

# What a packed batch says about itself, for the loss and the log.
_COUNTS = ("segments", "num_tokens", "sum_squared_lengths", "step_weight", "realized_ratio")


class LmTrainer(CheckpointedTrainer):
    """Trainer on packed micro-batches whose loss is normalized over the whole optimizer step."""

    loss_is_scaled_for_ga = True  # `step_weight` already spans all micro-batches and processes
    batching = {"batch_size": None, "shuffle": False}  # noqa: RUF012

    def __init__(
        self,
        model: Any,
        args: TrainingArguments,
        dataset: PackedDataset,
        optimizer_name: str,
        log_path: Path,
        ratio: Callable[[int], float] | None,
        evaluate: Callable[[int], dict[str, float]] | None = None,
    ) -> None:
        # Trainer asks for a data set to evaluate on; ours is inside `dev_scores`.
        super().__init__(model=model, args=args, train_dataset=dataset, eval_dataset=dataset)
        self.dev_scores, self.optimizer_name, self.log_path, self.ratio = evaluate, optimizer_name, log_path, ratio
        self.model_accepts_loss_kwargs = False
        self._sums = torch.zeros(2, len(SEGMENTS) + 1, dtype=torch.float64, device=self.args.device)
        self._realized = 0.0  # fraction of the last step's words that stood as text
        self.throughput = Throughput(self.model, self.args)
        self._flash = self.args.bf16 and flash_fits(self.model.config) and flash_works(self.args.device)

    def training_step(self, model: Any, inputs: dict[str, Any], num_items_in_batch: Any = None) -> torch.Tensor:
        """Forward and backward of a micro-batch, pass by pass; gradients are exchanged once, at its end."""
        *first, last = inputs["passes"]
        loss = torch.zeros((), device=self.args.device)
        state = self.accelerator.gradient_state
        whole = state.sync_gradients
        for batch in first:
            # DeepSpeed ignores `no_sync`: its backward takes an optimizer step wherever gradients are synchronized.
            state._set_sync_gradients(False)
            with self.accelerator.no_sync(model):
                loss += super().training_step(model, batch, num_items_in_batch)
        state._set_sync_gradients(whole)
        return loss + super().training_step(model, last, num_items_in_batch)

    def compute_loss(
        self, model: Any, inputs: dict[str, Any], return_outputs: bool = False, num_items_in_batch: Any = None
    ) -> torch.Tensor:
        """Weighted sum of the token losses over the weight of the whole step."""
        segments, labels = inputs["segments"], inputs["labels"]
        self.throughput.count(inputs["num_tokens"], inputs["sum_squared_lengths"])
        step_weight, self._realized = inputs["step_weight"], inputs["realized_ratio"]
        loss, losses = self._forward(model, inputs)
        counted = (labels != IGNORED).double()
        self._sums[0].index_add_(0, segments, losses.double() * counted)
        self._sums[1].index_add_(0, segments, counted)
        # DistributedDataParallel averages gradients over processes; the step's loss is their sum.
        return loss / step_weight * self.args.world_size

    def _forward(self, model: Any, inputs: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
        """Weighted sum of the token losses of a forward pass, and each token's own."""
        unused = (*_COUNTS, *(BUCKET_INPUTS if self._flash else FLASH_INPUTS))
        loss, losses = model(**{name: value for name, value in inputs.items() if name not in unused})
        return loss, losses

    @torch.no_grad()
    def evaluation_loss(self, passes: Sequence[dict[str, Any]]) -> float:
        """Loss of a micro-batch that is not trained on; the same in all processes."""
        self.model.eval()
        total = 0.0
        with self.compute_loss_context_manager():
            for batch in passes:
                total += float(self._forward(self.model, self._prepare_inputs(batch))[0]) / batch["step_weight"]
        return float(broadcast_object_list([total])[0])

    def _load_best_model(self) -> None:
        """Load the best checkpoint as a resumed training would, adapters included."""
        self._load_from_checkpoint(str(self.state.best_model_checkpoint))

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        """Add losses per segment, the text ratio, nominal and realized, and the speed; append all to log.jsonl."""
        if "loss" in logs:
            sums = self.accelerator.reduce(self._sums, reduction="sum").cpu()
            means = sums[0] / sums[1].clamp_min(1)
            logs |= {f"loss_{name}": float(means[i + 1]) for i, name in enumerate(SEGMENTS) if sums[1, i + 1]}
            logs["loss"] = float(sums[0].sum() / sums[1].sum().clamp_min(1))
            if self.ratio is not None:
                logs |= {"ratio": self.ratio(self.state.global_step - 1), "realized_ratio": self._realized}
            logs |= self.throughput.read(self.accelerator)
            self._sums.zero_()
        if self.is_world_process_zero() and "loss" in logs:
            with self.log_path.open("a", encoding="utf-8") as file:
                file.write(json.dumps({"step": self.state.global_step} | logs) + "\n")
        super().log(logs, start_time)
