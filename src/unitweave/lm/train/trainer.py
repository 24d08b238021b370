"""transformers' Trainer over the step-exact stream of packed batches."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from torch.utils.data import DataLoader
from transformers import TrainingArguments

from unitweave.core.signals import ignore_signals
from unitweave.interleaving.sequence import SEGMENTS
from unitweave.lm.data.packing import IGNORED
from unitweave.lm.data.stream import PackedDataset
from unitweave.lm.train.attention import BUCKET_INPUTS, FLASH_INPUTS, flash_fits, flash_works
from unitweave.lm.train.logs import Throughput
from unitweave.training.checkpoints import CheckpointedTrainer
from unitweave.training.optimizers import make_optimizer


class LmTrainer(CheckpointedTrainer):
    """Trainer on packed micro-batches whose loss is normalized over the whole optimizer step."""

    loss_is_scaled_for_ga = True  # `step_weight` already spans all micro-batches and processes
    optimizer: torch.optim.Optimizer | None

    def __init__(
        self,
        model: Any,
        args: TrainingArguments,
        dataset: PackedDataset,
        optimizer_name: str,
        log_path: Path,
        ratio: Callable[[int], float] | None,
    ) -> None:
        super().__init__(model=model, args=args, train_dataset=dataset)
        self.optimizer_name, self.log_path, self.ratio = optimizer_name, log_path, ratio
        self.model_accepts_loss_kwargs = False
        self._sums = torch.zeros(2, len(SEGMENTS) + 1, dtype=torch.float64, device=self.args.device)
        self._realized = 0.0  # fraction of the last step's words that stood as text
        self.throughput = Throughput(self.model, self.args)
        self._flash = self.args.bf16 and flash_fits(self.model.config) and flash_works(self.args.device)

    def create_optimizer(self, model: Any = None) -> torch.optim.Optimizer:
        """Make the optimizer that the settings name."""
        if self.optimizer is None:
            self.optimizer = make_optimizer(
                self.optimizer_name, self.model, self.args.learning_rate, self.args.weight_decay
            )
        return self.optimizer

    def get_train_dataloader(self) -> DataLoader:
        """The micro-batches of this process, in order: the dataset itself knows rank, accumulation and step."""
        # A loader draws a seed when iteration starts. Drawn from torch's own generator, which a resumed training has
        # restored by then, that seed would change the dropout of all that follows.
        return DataLoader(
            self.train_dataset,
            batch_size=None,
            shuffle=False,
            num_workers=self.args.dataloader_num_workers,
            worker_init_fn=ignore_signals,
            generator=torch.Generator().manual_seed(self.args.seed),
        )

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
        segments, labels = inputs.pop("segments"), inputs["labels"]
        self.throughput.count(inputs.pop("num_tokens"), inputs.pop("sum_squared_lengths"))
        step_weight, self._realized = inputs.pop("step_weight"), inputs.pop("realized_ratio")
        for name in BUCKET_INPUTS if self._flash else FLASH_INPUTS:
            inputs.pop(name)
        loss, losses = model(**inputs)
        counted = (labels != IGNORED).double()
        self._sums[0].index_add_(0, segments, losses.double() * counted)
        self._sums[1].index_add_(0, segments, counted)
        # DistributedDataParallel averages gradients over processes; the step's loss is their sum.
        return loss / step_weight * self.args.world_size

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
