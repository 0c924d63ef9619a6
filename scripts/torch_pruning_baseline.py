"""What a user would take instead: the base pruned by Torch-Pruning to the same MACs, and trained for as many steps.

Its dependency graph prunes whole groups, the residual stream included, by the L2 norm of their weights (group norm
importance), at the same ratio in each layer; the ratio is searched for until the network has no more MACs than asked.
Then it gets what our way without a bank gets: batch norm statistics of the target's images, a ridge classifier, and
fine-tuning by the same recipe. `bench_adapt.py` has it as a row; it needs `pip install torch-pruning`.
"""

from __future__ import annotations

import copy
import math
import time
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.optim.swa_utils import AveragedModel, get_ema_multi_avg_fn
from torch.utils.flop_counter import FlopCounterMode

from hf_metaprune.config import TrainingOptions
from hf_metaprune.data.images import ImageSet, augment
from hf_metaprune.data.task import TaskData
from hf_metaprune.models.base_model import BaseModel
from hf_metaprune.training.forward import EVAL_BATCH
from hf_metaprune.training.loop import batch_rows, lr_factor, make_optimizer
from hf_metaprune.training.ridge import ridge_head

SEARCH = 12  # bisections of the ratio


def count_macs(network: nn.Module, pixels: torch.Tensor) -> int:
    with FlopCounterMode(display=False) as counter, torch.inference_mode():
        network(pixels)
    return counter.get_total_flops() // 2


def pruned(base: BaseModel, ratio: float, pixels: torch.Tensor) -> nn.Module:
    """A copy of the base without the share `ratio` of each group."""
    import torch_pruning as tp

    network = copy.deepcopy(base.network).eval()
    heads = {m.qkv: m.num_heads for m in network.modules() if hasattr(m, "qkv")}
    pruner = tp.pruner.BasePruner(
        network,
        pixels,
        importance=tp.importance.GroupMagnitudeImportance(p=2),
        pruning_ratio=ratio,
        ignored_layers=[base.family.classifier(network)],
        num_heads=heads,
        prune_num_heads=bool(heads),
        prune_head_dims=not heads,
        head_pruning_ratio=ratio if heads else 0.0,
    )
    pruner.step()
    for module in [module for module in network.modules() if hasattr(module, "qkv")]:
        module.num_heads = pruner.num_heads[module.qkv]
        module.head_dim = module.qkv.out_features // 3 // module.num_heads
        module.attn_dim = module.num_heads * module.head_dim
    return network


def to_macs(base: BaseModel, macs: int, pixels: torch.Tensor) -> nn.Module:
    """The largest network of this kind within so many MACs."""
    low, high, best = 0.0, 0.99, None
    for _ in range(SEARCH):
        middle = (low + high) / 2
        candidate = pruned(base, middle, pixels)
        if count_macs(candidate, pixels) <= macs:
            high, best = middle, candidate
        else:
            low = middle
    assert best is not None, "no ratio is enough"
    return best


class Baseline:
    """The pruned network with a classifier for the task, trained like ours."""

    def __init__(self, base: BaseModel, network: nn.Module, data: TaskData) -> None:
        self.family, self.network, self.data = base.family, network, data

    def features(self, pixels: torch.Tensor, network: nn.Module | None = None) -> torch.Tensor:
        return self.family.features(network or self.network, pixels)

    @torch.no_grad()
    def recalibrate(self, images: ImageSet) -> None:
        norms = [m for m in self.network.modules() if isinstance(m, nn.modules.batchnorm._BatchNorm)]
        for norm in norms:
            norm.reset_running_stats()
            norm.momentum = None
        self.network.train()
        order = torch.randperm(len(images), generator=torch.Generator().manual_seed(0))
        for rows in order.tensor_split(math.ceil(len(images) / EVAL_BATCH)):
            self.features(images.preprocessing.normalize(images.images[rows]))
        for norm in norms:
            norm.momentum = 0.1

    @torch.no_grad()
    def set_head(self, images: ImageSet) -> None:
        self.network.eval()
        features = torch.cat([self.features(x).double() for x, _ in images.batches(EVAL_BATCH)])
        head = ridge_head(features, images.targets, len(self.data.task.labels))
        self.head = nn.Linear(features.shape[1], len(self.data.task.labels))
        self.head.weight.copy_(head.weight)
        self.head.bias.copy_(head.bias)

    @torch.inference_mode()
    def accuracy(self, module: nn.Module, images: ImageSet) -> float:
        module.eval()
        hits = 0
        for x, y in images.batches(EVAL_BATCH):
            hits += int((module[1](self.features(x, module[0])).argmax(1) == y).sum())
        return hits / len(images)

    def train(self, options: TrainingOptions, seed: int) -> tuple[dict[int, float], float]:
        """Accuracy by step, and seconds without evaluation."""
        images, both = self.data.train, nn.ModuleList([self.network, self.head])
        optimizer = make_optimizer(both, options)
        schedule = torch.optim.lr_scheduler.LambdaLR(optimizer, lambda s: lr_factor(s, options))
        average = AveragedModel(both, multi_avg_fn=get_ema_multi_avg_fn(options.ema))
        average.update_parameters(both)
        rows, generator = batch_rows(len(images), options.batch_size, seed), torch.Generator().manual_seed(seed)
        accuracies, seconds = {0: self.accuracy(both, self.data.evaluation)}, 0.0
        for step in range(options.steps):
            began = time.perf_counter()
            both.train()
            batch, targets = images.__getitems__(next(rows))
            x = augment(images.preprocessing.normalize(batch), generator, options.flip, options.shift)
            loss = F.cross_entropy(both[1](self.features(x)), targets)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            average.update_parameters(both)
            seconds += time.perf_counter() - began
            if step + 1 in options.eval_steps:
                for own, mine in zip(average.module.buffers(), both.buffers(), strict=True):
                    own.copy_(mine)  # batch norm statistics are averages already
                accuracies[step + 1] = self.accuracy(average.module, self.data.evaluation)
        return accuracies, seconds


def run_baseline(base: BaseModel, data: TaskData, seed: int, macs: int, options: TrainingOptions) -> dict[str, Any]:
    """A row of the benchmark: pruned to no more than `macs`, then trained."""
    torch.manual_seed(seed)
    pixels = torch.zeros(1, *base.preprocessing.input_size)
    began = time.perf_counter()
    baseline = Baseline(base, to_macs(base, macs, pixels), data)
    baseline.recalibrate(data.train)
    baseline.set_head(data.train)
    phases = {"prune and set the classifier": time.perf_counter() - began}
    accuracy, phases["fine-tune"] = baseline.train(options, seed)
    each = 3 * 2 * count_macs(baseline.network, pixels)  # backward costs twice as much as forward, or nearly
    batch = min(options.batch_size, len(data.train))
    params = sum(p.numel() for m in (baseline.network, baseline.head) for p in m.parameters())
    unused_head = baseline.family.classifier(baseline.network)  # the base's
    params -= sum(p.numel() for p in unused_head.parameters())
    return {
        "accuracy": accuracy,
        "flops": each * options.steps * batch,
        "phases": phases,
        "params": params,
        "macs": count_macs(baseline.network, pixels),
    }
