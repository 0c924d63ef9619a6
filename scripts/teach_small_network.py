#!/usr/bin/env python
"""What a user would take instead of a bank: a small dense network that the base has taught.

It is of the base's family, but narrower, and has no more MACs than a model of a bank's trunk at a ratio. The base
teaches it as it teaches a trunk: the same images, steps, batches and loss, but it begins with random weights and has
one size. `bench_adapt.py --row "small network"` then gives it what a model of the trunk gets: the decoded classifier,
and fine-tuning by the base's features.

    uv run scripts/teach_small_network.py --bank ./space/demo_bank --data ../shared/data/cifar100 --out runs/small

A killed run goes on from its last checkpoint.
"""

from __future__ import annotations

import logging
import time
from pathlib import Path
from typing import Annotated, Any

import torch
import typer
from build_demo_bank import held_out_classes, read_cifar100
from safetensors.torch import load_file, save_file
from timm.models import save_for_hf
from torch import nn
from torch.func import functional_call

from hf_metaprune import Bank, BaseModel, TrunkOptions
from hf_metaprune.data.images import ImageSet
from hf_metaprune.masks.mask import Mask, keep_count
from hf_metaprune.models.modeling import MetaPrunedForImageClassification
from hf_metaprune.sizing.cost_model import CostModel, count_flops
from hf_metaprune.training.forward import extract_features
from hf_metaprune.training.hardware import pick_device
from hf_metaprune.training.statistics import recalibrate
from hf_metaprune.trunk import Teaching
from hf_metaprune.trunk.checkpoint import load_checkpoint, run_digest, save_checkpoint
from hf_metaprune.trunk.decoder import Decoder, fit_decoder
from hf_metaprune.trunk.teaching import DECODER_IMAGES, _Stream, trainable

log = logging.getLogger("teach_small_network")
CHECKPOINT_SECONDS = 60.0
WIDTHS = 64  # multiples of the base's widths that are tried


class _Student(nn.Module):
    """A dense network as one size of a `Teaching`."""

    def __init__(self, small: BaseModel, device: torch.device) -> None:
        super().__init__()
        self.model = small.whole().to(device=device, memory_format=torch.channels_last)
        self.mask, self.stream = self.model.mask(), _Stream(self.model)

    def forward(self, pixels: torch.Tensor) -> torch.Tensor:
        return self.model.features(pixels)

    def features(self, weights: dict[str, torch.Tensor], pixels: torch.Tensor) -> torch.Tensor:
        return functional_call(self, {f"model.network.{name}": tensor for name, tensor in weights.items()}, (pixels,))


class DenseTeaching(Teaching):
    """A teaching of a network of its own, instead of parts of the base."""

    def __init__(
        self, base: BaseModel, small: BaseModel, images: ImageSet, options: TrunkOptions, device: torch.device
    ) -> None:
        super().__init__(base, images, options, device)
        self.sizes = [_Student(small, device)]  # type: ignore[list-item]
        classifier = f"{small.family.classifier_name(small.network)}."
        self.weights = trainable({n: t for n, t in small.state.items() if not n.startswith(classifier)}, device)
        width, base_width = (b.family.classifier(b.network).in_features for b in (small, base))
        layer = nn.Linear(width, base_width)
        self.decoders = {
            "decoder.0.weight": layer.weight.detach().to(device).requires_grad_(),
            "decoder.0.bias": torch.zeros(base_width, device=device).requires_grad_(),
        }
        self._begin()

    def result(self) -> tuple[MetaPrunedForImageClassification, Decoder]:
        """The network with statistics of its own, and its decoder in closed form, as a trunk's."""
        model = self.sizes[0].model
        model.network.load_state_dict({name: tensor.detach() for name, tensor in self.weights.items()}, strict=False)
        recalibrate(model, self.images, self.device, seed=self.seed)
        rows = torch.randperm(len(self.images), generator=torch.Generator().manual_seed(self.seed))[:DECODER_IMAGES]
        sample = self.images.subset(rows)
        features, targets = (extract_features(m, sample, self.device, "auto") for m in (model, self.teacher))
        return model, fit_decoder(features, targets)


def config_of(base: BaseModel, args: dict[str, Any]) -> dict[str, Any]:
    return {"model_args": args, "pretrained_cfg": base.preprocessing.to_config() | {"num_classes": 2}}


def narrow(base: BaseModel, ratio: float, folder: Path) -> BaseModel:
    """The widest untrained network of the base's kind with no more MACs than its sub-networks at a ratio."""
    pixels = torch.zeros(1, *base.preprocessing.input_size)
    counts = {name: keep_count(size, ratio) for name, size in base.sizes.items()}
    limit = CostModel(base.config(Mask.full(base.sizes), ["a", "b"]), pixels).macs(counts)
    for k in range(WIDTHS - 1, 0, -1):
        args = dict(base.model_args)
        args["channels"] = [max(1, round(width * k / WIDTHS)) for width in args["channels"]]
        args["stem_width"] = max(1, round(args["stem_width"] * k / WIDTHS))
        torch.manual_seed(0)
        network = base.family.build(base.architecture, args, 2)
        save_for_hf(network, folder, model_config=config_of(base, args), safe_serialization=True)
        small = BaseModel.load(folder)
        macs = count_flops(small.whole(["a", "b"]), pixels)[0] // 2
        if macs <= limit:
            log.info("%d/%d of the widths: %s, %s MACs of at most %s", k, WIDTHS, args["channels"], macs, limit)
            return small
    raise SystemExit("the base cannot be made as narrow")


def load_small(folder: Path) -> tuple[BaseModel, Decoder]:
    """The network and its decoder, as `main` has stored them."""
    return BaseModel.load(folder / "network"), Decoder(**load_file(folder / "decoder.safetensors"))


def main(
    bank: Annotated[Path, typer.Option(help="The bank whose base teaches.")] = Path("space/demo_bank"),
    data: Annotated[str | None, typer.Option(help="Folder of CIFAR-100 parquet; the Hub's copy if left out.")] = None,
    out: Annotated[Path, typer.Option(help="Folder of the result.")] = Path("runs/small"),
    ratio: Annotated[float, typer.Option(help="Ratio whose MACs are the most that it may have.")] = 0.9,
    steps: Annotated[int, typer.Option(help="Optimizer steps.")] = 20_000,
    lr: Annotated[float | None, typer.Option(help="Peak learning rate; the trunk's if left out.")] = None,
    threads: Annotated[int, typer.Option(help="CPU threads.")] = 1,
) -> None:
    """Teach it on the training images of the classes that are not kept out."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(message)s", datefmt="%H:%M:%S")
    torch.set_num_threads(threads)
    base, out_network = Bank.open(bank).base, out / "network"
    unseen = set(held_out_classes())
    images = read_cifar100(base, data).select([c for c in range(100) if c not in unseen]).train
    small = narrow(base, ratio, out_network)
    options = TrunkOptions(ratios=(ratio,), steps=steps, lr=lr, hint_weight=0.0)  # its stream is narrower
    teaching, checkpoint = DenseTeaching(base, small, images, options, pick_device()), out / "checkpoint.safetensors"
    digest, saved_at = run_digest(teaching), time.monotonic()
    load_checkpoint(teaching, checkpoint, digest)
    while teaching.step_number < steps:
        loss = teaching.step()
        if time.monotonic() - saved_at >= CHECKPOINT_SECONDS:
            save_checkpoint(teaching, checkpoint, digest)
            saved_at = time.monotonic()
            log.info("step %d: loss %.3f, %.0f s", teaching.step_number, loss, teaching.seconds)
    model, decoder = teaching.result()
    classifier = f"{small.family.classifier_name(small.network)}."
    save_file({"weight": decoder.weight.contiguous(), "bias": decoder.bias}, out / "decoder.safetensors")
    taught = {name: tensor for name, tensor in model.network.state_dict().items() if not name.startswith(classifier)}
    small.network.load_state_dict(taught, strict=False)
    save_for_hf(small.network, out_network, model_config=config_of(base, small.model_args), safe_serialization=True)
    log.info("%d steps, %.0f s", steps, teaching.seconds)


if __name__ == "__main__":
    typer.run(main)
