"""Train the embedded ResNet-8 on Fashion-MNIST and export it as ONNX (one-off, needs PyTorch).

Nothing imports this script at run time.  It reads the four IDX files of the Debian package dataset-fashion-mnist,
trains for a fixed number of epochs, folds every BatchNorm into its convolution and writes everything that
``models/zoo/data/fashion_resnet8`` holds:

    python models/zoo/train_resnet8.py --images /usr/share/datasets/fashion-mnist --out models/zoo/data/fashion_resnet8

The seed is fixed, one thread computes, and the final weights are kept: nothing is selected on the test images.
"""

import argparse
import gzip
import hashlib
import json
import math
import time
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import onnx
import torch
from onnx import TensorProto, helper, numpy_helper
from torch import Tensor, nn
from torch.nn import functional

__all__ = ["ResNet8", "Settings", "build_onnx", "main"]

MEAN, STD = 0.286, 0.353
TEST_IMAGES, CALIBRATION_IMAGES = 1_000, 256
SOURCE = "Debian package dataset-fashion-mnist 0.0~git20200523.55506a9-1"
SOURCE_SHA256 = "39e172fe32dd318ebb3e512220c3beea2fa47d7e20bab348fb4e0922d6beefc0"


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Shape of the model and of its training."""

    width: int = 16
    classes: int = 10
    epochs: int = 20
    batch: int = 128
    lr: float = 1e-2
    weight_decay: float = 0.05
    warmup_steps: int = 200
    shift_pixels: int = 1
    seed: int = 0


class ConvNorm(nn.Module):
    """A convolution without bias followed by BatchNorm; `fold` turns both into one convolution."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(inputs, outputs, kernel, stride, padding=kernel // 2, bias=False)
        self.norm = nn.BatchNorm2d(outputs)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(self.conv(x))

    def fold(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the float32 weight (out, in, height, width) and bias (out,) of the folded convolution."""
        gain = self.norm.weight.double() / (self.norm.running_var.double() + self.norm.eps).sqrt()
        weight = self.conv.weight.double() * gain[:, None, None, None]
        bias = self.norm.bias.double() - self.norm.running_mean.double() * gain
        return weight.detach().float().numpy(), bias.detach().float().numpy()


class Block(nn.Module):
    """Two 3x3 convolutions around a shortcut, which is a 1x1 convolution when the stride is not 1."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.conv1 = ConvNorm(inputs, outputs, 3, stride)
        self.conv2 = ConvNorm(outputs, outputs, 3, 1)
        self.shortcut = ConvNorm(inputs, outputs, 1, stride) if stride != 1 else None

    def forward(self, x: Tensor) -> Tensor:
        short = x if self.shortcut is None else self.shortcut(x)
        return functional.relu(self.conv2(functional.relu(self.conv1(x))) + short)


class ResNet8(nn.Module):
    """Stem with stride 2, three residual blocks, global average pool, linear."""

    def __init__(self, settings: Settings) -> None:
        super().__init__()
        width = settings.width
        self.stem = ConvNorm(1, width, 3, 2)
        self.block1 = Block(width, width, 1)
        self.block2 = Block(width, 2 * width, 2)
        self.block3 = Block(2 * width, 4 * width, 2)
        self.head = nn.Linear(4 * width, settings.classes)

    def forward(self, x: Tensor) -> Tensor:
        x = functional.relu(self.stem(x))
        return self.head(self.block3(self.block2(self.block1(x))).mean((2, 3)))


def build_onnx(model: ResNet8) -> onnx.ModelProto:
    """Build the inference graph: Conv, Relu, Add, GlobalAveragePool, Flatten, Gemm (opset 17, float32).

    Input ``image`` is float32[batch, 1, 28, 28], already normalized; output ``logits`` is float32[batch, 10].
    """
    nodes: list[onnx.NodeProto] = []
    initializers: list[onnx.TensorProto] = []

    def constant(name: str, value: np.ndarray) -> str:
        initializers.append(numpy_helper.from_array(np.ascontiguousarray(value), name))
        return name

    def convolution(name: str, layer: ConvNorm, source: str) -> str:
        weight, bias = layer.fold()
        kernel, pad = weight.shape[2], weight.shape[2] // 2
        inputs = [source, constant(f"{name}.weight", weight), constant(f"{name}.bias", bias)]
        nodes.append(
            helper.make_node(
                "Conv", inputs, [f"{name}.out"], name=name, kernel_shape=[kernel, kernel], pads=[pad] * 4,
                strides=list(layer.conv.stride),
            )
        )  # fmt: skip
        return f"{name}.out"

    def simple(operator: str, name: str, *inputs: str) -> str:
        nodes.append(helper.make_node(operator, list(inputs), [f"{name}.out"], name=name))
        return f"{name}.out"

    x = simple("Relu", "stem.relu", convolution("stem", model.stem, "image"))
    for name in ("block1", "block2", "block3"):
        block: Block = getattr(model, name)
        inner = simple("Relu", f"{name}.relu1", convolution(f"{name}.conv1", block.conv1, x))
        inner = convolution(f"{name}.conv2", block.conv2, inner)
        short = x if block.shortcut is None else convolution(f"{name}.shortcut", block.shortcut, x)
        x = simple("Relu", f"{name}.relu2", simple("Add", f"{name}.add", inner, short))
    x = simple("Flatten", "flatten", simple("GlobalAveragePool", "pool", x))
    weight, bias = model.head.weight.detach().numpy(), model.head.bias.detach().numpy()
    head = [x, constant("head.weight", weight), constant("head.bias", bias)]
    nodes.append(helper.make_node("Gemm", head, ["logits"], name="head", transB=1))
    image = helper.make_tensor_value_info("image", TensorProto.FLOAT, ["batch", 1, 28, 28])
    logits = helper.make_tensor_value_info("logits", TensorProto.FLOAT, ["batch", len(bias)])
    graph = helper.make_graph(nodes, "fashion_resnet8", [image], [logits], initializers)
    opsets = [helper.make_opsetid("", 17)]
    proto = helper.make_model(graph, opset_imports=opsets, ir_version=8, producer_name="sparsefab")
    onnx.checker.check_model(proto, full_check=True)
    return proto


def count_correct(model: nn.Module, images: Tensor, labels: Tensor) -> int:
    """Count the images whose largest logit is at the label."""
    model.eval()
    with torch.no_grad():
        return sum(
            int((model(rows).argmax(1) == wanted).sum())
            for rows, wanted in zip(images.split(500), labels.split(500), strict=True)
        )


def main() -> None:
    """Train, evaluate and write the ONNX file, the images, the licence and the provenance."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", type=Path, required=True, help="folder with the four IDX .gz files")
    parser.add_argument("--out", type=Path, required=True, help="folder to write")
    arguments = parser.parse_args()
    settings = Settings()
    torch.manual_seed(settings.seed)
    torch.set_num_threads(1)
    torch.use_deterministic_algorithms(True)
    train_pixels, train_labels = _read_split(arguments.images, "train")
    test_pixels, test_labels = _read_split(arguments.images, "t10k")
    test_images, test_targets = _normalize(test_pixels), torch.from_numpy(test_labels.astype(np.int64))
    model = ResNet8(settings)
    started = time.monotonic()
    _train(model, settings, _normalize(train_pixels), torch.from_numpy(train_labels.astype(np.int64)))
    wall_s = round(time.monotonic() - started)
    correct = count_correct(model, test_images, test_targets)
    correct_vendored = count_correct(model, test_images[:TEST_IMAGES], test_targets[:TEST_IMAGES])
    print(f"test top-1: {correct} of {len(test_labels)}, {correct_vendored} of the first {TEST_IMAGES}")
    out = arguments.out
    out.mkdir(parents=True, exist_ok=True)
    (out / "model.onnx").write_bytes(build_onnx(model).SerializeToString(deterministic=True))
    np.savez_compressed(
        out / "test_images.npz",
        images=test_pixels[:TEST_IMAGES],
        labels=test_labels[:TEST_IMAGES],
        calibration_images=train_pixels[:CALIBRATION_IMAGES],
        calibration_labels=train_labels[:CALIBRATION_IMAGES],
    )
    provenance = {
        "model": "fashion-resnet8",
        "corpus": {
            "source": SOURCE,
            "source_sha256": SOURCE_SHA256,
            "licence": "MIT, see LICENSE.fashion-mnist",
            "vendored": f"first {TEST_IMAGES} official test images; first {CALIBRATION_IMAGES} training images",
            "file_sha256": {
                path.name: hashlib.sha256(path.read_bytes()).hexdigest()
                for path in sorted(arguments.images.glob("*.gz"))
            },
        },
        "settings": asdict(settings) | {"torch": torch.__version__, "threads": 1, "normalization": [MEAN, STD]},
        "parameters": sum(array.size for array in map(numpy_helper.to_array, build_onnx(model).graph.initializer)),
        "wall_s": wall_s,
        "metric": {
            "name": "top-1",
            "value": correct / len(test_labels),
            "images": len(test_labels),
            "vendored_value": correct_vendored / TEST_IMAGES,
            "vendored_images": TEST_IMAGES,
            "protocol": "official test images in file order, (pixel / 255 - 0.286) / 0.353; final weights, nothing "
            "selected on the test images",
        },
        "files_sha256": {
            name: hashlib.sha256((out / name).read_bytes()).hexdigest() for name in ("model.onnx", "test_images.npz")
        },
    }
    text = json.dumps(provenance, indent=1) + "\n"
    (out / "provenance.json").write_text(text, encoding="utf-8", newline="\n")


def _train(model: ResNet8, settings: Settings, images: Tensor, labels: Tensor) -> None:
    """Train with AdamW, a warm-up and a cosine to zero; flips every second batch and shifts every batch."""
    generator = np.random.default_rng(settings.seed)
    optimizer = torch.optim.AdamW(model.parameters(), lr=settings.lr, weight_decay=settings.weight_decay)
    per_epoch = len(labels) // settings.batch
    total = settings.epochs * per_epoch
    started = time.monotonic()
    model.train()
    for step in range(total):
        if step % per_epoch == 0:
            order = torch.from_numpy(generator.permutation(len(labels)))
        chosen = order[step % per_epoch * settings.batch :][: settings.batch]
        shifts = generator.integers(-settings.shift_pixels, settings.shift_pixels + 1, 2)
        rows = _shift(images[chosen], int(shifts[0]), int(shifts[1]))
        rows = rows.flip(3) if step % 2 else rows
        loss = functional.cross_entropy(model(rows), labels[chosen])
        warm = min(1.0, (step + 1) / settings.warmup_steps)
        optimizer.param_groups[0]["lr"] = settings.lr * warm * 0.5 * (1 + math.cos(math.pi * step / total))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        if (step + 1) % per_epoch == 0:
            epoch, seconds = (step + 1) // per_epoch, time.monotonic() - started
            print(f"epoch {epoch:3d} of {settings.epochs}  {seconds:6.0f} s  loss {loss.item():.4f}", flush=True)


def _shift(images: Tensor, down: int, right: int) -> Tensor:
    """Move a batch by whole pixels; the border fills with the background."""
    reach = max(abs(down), abs(right))
    padded = functional.pad(images, (reach,) * 4, value=-MEAN / STD)
    return padded[:, :, reach - down : reach - down + 28, reach - right : reach - right + 28]


def _normalize(pixels: np.ndarray) -> Tensor:
    return torch.from_numpy(((pixels.astype(np.float32) / 255 - MEAN) / STD)[:, None])


def _read_split(folder: Path, split: str) -> tuple[np.ndarray, np.ndarray]:
    """Read uint8 images (count, 28, 28) and uint8 labels (count,) of one split from its IDX files."""
    images = gzip.decompress((folder / f"{split}-images-idx3-ubyte.gz").read_bytes())
    labels = gzip.decompress((folder / f"{split}-labels-idx1-ubyte.gz").read_bytes())
    return (
        np.frombuffer(images, np.uint8, offset=16).reshape(-1, 28, 28),
        np.frombuffer(labels, np.uint8, offset=8),
    )


if __name__ == "__main__":
    main()
