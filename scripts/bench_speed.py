#!/usr/bin/env python
"""Benchmark: how much faster a sliced network is than its base, beside how many fewer MACs and bytes it has.

Networks have random weights and a random mask: speed depends on neither. Base and sub-network are timed in turn,
pass by pass, in one process; the table has the ratio of their medians. Run it with nothing beside it.

    uv run --extra openvino scripts/bench_speed.py
    uv run --extra onnx scripts/bench_speed.py --network resnet18-224 --batches 64 --runtimes eager --profile
"""

from __future__ import annotations

import platform
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import timm
import torch
import typer

from hf_metaprune.data.preprocessing import Preprocessing
from hf_metaprune.export import export_onnx, export_openvino
from hf_metaprune.masks.scores import ScoreMask
from hf_metaprune.models.architectures.lookup import find_architecture
from hf_metaprune.models.base_model import BaseModel
from hf_metaprune.models.modeling import MetaPrunedForImageClassification
from hf_metaprune.models.saving import save_model
from hf_metaprune.models.slicing import count_parameters
from hf_metaprune.sizing.cost_model import count_flops
from hf_metaprune.sizing.order import Order, Sizing
from hf_metaprune.training.hardware import machine_kind

Pass = Callable[[torch.Tensor], Any]
LABELS = ("a", "b", "c", "d", "e")


@dataclass(frozen=True)
class Network:
    """A network of timm, and the images it sees."""

    architecture: str
    args: dict[str, Any]
    side: int


NETWORKS = {
    "resnet18-224": Network("resnet18", {}, 224),
    "resnet18-cifar": Network("resnet18", {"cifar_stem": True}, 32),
    "vit-s-224": Network("vit_small_patch16_224", {}, 224),
}
RUNTIMES = ("eager", "compiled", "onnxruntime", "openvino")


def make_base(network: Network) -> BaseModel:
    torch.manual_seed(0)
    family = find_architecture("timm", network.architecture)
    module = family.build(network.architecture, network.args, 1000)
    how = Preprocessing((3, network.side, network.side))
    return BaseModel("timm", network.architecture, network.args, "0" * 64, how, module.eval())


def passes(model: MetaPrunedForImageClassification, base: BaseModel, runtime: str, threads: int) -> Pass:
    """One forward pass in a runtime."""
    if runtime == "onnxruntime":
        import onnxruntime

        with tempfile.TemporaryDirectory() as folder:
            export = export_onnx(model, base.preprocessing, Path(folder) / "model.onnx")
            options = onnxruntime.SessionOptions()
            options.intra_op_num_threads = threads
            session = onnxruntime.InferenceSession(export.path, options, providers=["CPUExecutionProvider"])
        return lambda x: session.run(None, {"pixel_values": x.numpy()})
    if runtime == "openvino":
        import openvino

        core, how = openvino.Core(), {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads}
        with tempfile.TemporaryDirectory() as folder:
            export = export_openvino(model, base.preprocessing, Path(folder) / "openvino")
            compiled = core.compile_model(core.read_model(export.path / "openvino_model.xml"), "CPU", how)
        return lambda x: compiled(x.numpy())
    model = model.to(memory_format=torch.channels_last).eval()
    forward = torch.compile(model) if runtime == "compiled" else model
    return lambda x: forward(x.contiguous(memory_format=torch.channels_last)).logits


@torch.inference_mode()
def compare(slow: Pass, fast: Pass, pixels: torch.Tensor, seconds: float) -> tuple[float, float]:
    """Median milliseconds of both, timed in turn for about so many seconds."""
    for _ in range(2):
        slow(pixels), fast(pixels)
    times: tuple[list[float], list[float]] = ([], [])
    end = time.perf_counter() + seconds
    while time.perf_counter() < end or len(times[0]) < 5:
        for milliseconds, one in zip(times, (slow, fast), strict=True):
            began = time.perf_counter()
            one(pixels)
            milliseconds.append(1000 * (time.perf_counter() - began))
    return statistics.median(times[0]), statistics.median(times[1])


def file_bytes(model: MetaPrunedForImageClassification) -> int:
    with tempfile.TemporaryDirectory() as folder:
        save_model(model, Path(folder))
        return (Path(folder) / "model.safetensors").stat().st_size


def show_profile(model: Pass, network: torch.nn.Module, pixels: torch.Tensor, repeats: int = 5) -> None:
    """Where the time of the sub-network goes: by part of it, and by operation."""
    from torch.profiler import profile

    durations: dict[str, float] = {}
    hooks = []
    for name, part in network.named_children():
        start = lambda *_, name=name: durations.update({name: durations.get(name, 0.0) - time.perf_counter()})  # noqa: E731
        stop = lambda *_, name=name: durations.update({name: durations[name] + time.perf_counter()})  # noqa: E731
        hooks += [part.register_forward_pre_hook(start), part.register_forward_hook(stop)]
    with torch.inference_mode():
        model(pixels)
        durations.clear()
        for _ in range(repeats):
            model(pixels)
    for hook in hooks:
        hook.remove()
    print("\nms by part: " + ", ".join(f"{n} {1000 * s / repeats:.1f}" for n, s in durations.items()))
    with torch.inference_mode(), profile() as profiler:
        for _ in range(repeats):
            model(pixels)
    print(profiler.key_averages().table(sort_by="self_cpu_time_total", row_limit=12, max_name_column_width=40))


def main(
    network: Annotated[list[str] | None, typer.Option(help=f"Of {', '.join(NETWORKS)}; all if left out.")] = None,
    ratio: Annotated[float, typer.Option(help="Share of units removed.")] = 0.9,
    round_to: Annotated[int, typer.Option(help="Multiple that widths are rounded to, but for attention heads.")] = 1,
    stem: Annotated[bool, typer.Option(help="Prune the stem of ResNets, too.")] = False,
    batches: Annotated[str, typer.Option(help="Batch sizes, separated by commas.")] = "1,64",
    threads: Annotated[str, typer.Option(help="Numbers of threads, separated by commas.")] = "1,2",
    runtimes: Annotated[str, typer.Option(help="Of eager, compiled, onnxruntime, openvino.")] = ",".join(RUNTIMES),
    seconds: Annotated[float, typer.Option(help="Time for each comparison.")] = 8.0,
    profile: Annotated[bool, typer.Option(help="Show where the sub-network's time goes, too.")] = False,
) -> None:
    """Print the table."""
    print(f"torch {torch.__version__}, timm {timm.__version__}, Python {platform.python_version()}, ", end="")
    with_stem = ", the stem pruned, too" if stem else ""
    print(f"{machine_kind(torch.device('cpu'))}; ratio {ratio}, widths rounded to {round_to}{with_stem}\n")
    print("| network | runtime | threads | batch | base, ms | sliced, ms | faster | fewer MACs | parameters | file |")
    print("| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for name in network or NETWORKS:
        base = make_base(NETWORKS[name])
        rng = np.random.default_rng(0)
        layers = base.layers_with(stem)
        order = Order.from_scores(ScoreMask({layer.name: rng.random(layer.size) for layer in layers}))
        mask = order.mask(Sizing(layers, order, multiple=round_to).counts(ratio))
        full = base.whole(LABELS).eval()
        sliced = base.slice(base.config(mask, LABELS)).eval()
        image = torch.zeros(1, *base.preprocessing.input_size)
        fewer = count_flops(full, image)[0] / count_flops(sliced, image)[0]
        params = count_parameters(sliced) / count_parameters(full)
        size = file_bytes(sliced) / file_bytes(full)
        for runtime in runtimes.split(","):
            for n_threads in map(int, threads.split(",")):
                torch.set_num_threads(n_threads)
                make = partial(passes, base=base, runtime=runtime, threads=n_threads)
                pair = make(full), make(sliced)
                for batch in map(int, batches.split(",")):
                    pixels = torch.randn(batch, *base.preprocessing.input_size)
                    slow, fast = compare(*pair, pixels, seconds)
                    cells = (name, runtime, n_threads, batch, f"{slow:.1f}", f"{fast:.2f}", f"{slow / fast:.1f} x")
                    shares = (f"{fewer:.1f} x", f"{params:.1%}", f"{size:.1%}")
                    print("| " + " | ".join(map(str, (*cells, *shares))) + " |", flush=True)
                    if profile and runtime == "eager":
                        show_profile(pair[1], sliced.network, pixels)


if __name__ == "__main__":
    typer.run(main)
