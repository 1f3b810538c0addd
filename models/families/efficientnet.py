"""EfficientNet-lite0: inverted residual blocks with ReLU6, no squeeze and excitation, batch norms folded in.

The block list and TensorFlow's 'SAME' padding (the odd column goes right and below) follow the reference
implementation of EfficientNet-lite (tensorflow/tpu, Apache-2.0) in its PyTorch port efficientnet-lite-pytorch 0.1.0.
"""

from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from sparsefab.errors import ModelError
from sparsefab.models.families.builder import Builder, Tensors, float_tensor
from sparsefab.models.graph import Value
from sparsefab.models.model import Model
from sparsefab.workload import Convolution

__all__ = ["build_efficientnet_lite0", "is_efficientnet_lite"]

IMAGE_SIZE = 224
_EPSILON = 1e-3
# repeats, kernel, stride of the first, expansion, output channels
_STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


def is_efficientnet_lite(tensors: Tensors) -> bool:
    """Tell by its names whether a state dict is one of this family."""
    return {"_conv_stem.weight", "_blocks.0._depthwise_conv.weight", "_conv_head.weight", "_fc.weight"} <= set(tensors)


def build_efficientnet_lite0(name: str, tensors: Tensors, metadata: Mapping[str, str]) -> Model:
    """Build the network from the state dict of efficientnet-lite-pytorch.

    Returns
    -------
    Model     Input image float32[batch, 3, 224, 224], (value - 127) / 128 of 8-bit RGB; output logits [batch, classes].
    """
    blocks = sum(repeats for repeats, *_ in _STAGES)
    if f"_blocks.{blocks - 1}._bn2.weight" not in tensors or f"_blocks.{blocks}._bn2.weight" in tensors:
        raise ModelError(f"the state dict is an EfficientNet-lite, but not lite0 of {blocks} blocks; export it to ONNX")
    net = _Network(tensors)
    x = net.convolution("_conv_stem", "_bn0", "image", (32, 3, 3, 3), stride=2)
    channels, index = 32, 0
    for repeats, kernel, first_stride, expansion, out in _STAGES:
        for repeat in range(repeats):
            x = net.block(
                f"_blocks.{index}", x, (channels, channels * expansion, out), kernel, first_stride if repeat == 0 else 1
            )
            channels, index = out, index + 1
    x = net.convolution("_conv_head", "_bn1", x, (1280, channels, 1, 1))
    b = net.b
    x = b.add("Flatten", [b.add("GlobalAveragePool", [x], "pool")], "features", {"axis": 1})
    weight = float_tensor(tensors, "_fc.weight")
    b.linear("_fc", x, weight, float_tensor(tensors, "_fc.bias", (len(weight),)), output="logits")
    image = Value(name="image", dtype="float32", shape=("batch", 3, IMAGE_SIZE, IMAGE_SIZE))
    logits = Value(name="logits", dtype="float32", shape=("batch", len(weight)))
    details = {"architecture": "efficientnet-lite0", "task": "image-classification", "input": "(rgb - 127) / 128"}
    return b.model(name, "cnn", [image], [logits], {**details, **metadata})


class _Network:
    """The convolutions of the network, written into a builder; keeps track of the size of the images."""

    def __init__(self, tensors: Tensors) -> None:
        self.b = Builder()
        self.tensors = tensors
        self.size = IMAGE_SIZE

    def block(self, prefix: str, x: str, channels: tuple[int, int, int], kernel: int, stride: int) -> str:
        """Widen, convolve each channel, narrow; add the input where the shape stays."""
        start, wide, out = channels
        y = x
        if wide != start:
            y = self.convolution(f"{prefix}._expand_conv", f"{prefix}._bn0", y, (wide, start, 1, 1))
        y = self.convolution(f"{prefix}._depthwise_conv", f"{prefix}._bn1", y, (wide, 1, kernel, kernel), stride, wide)
        y = self.convolution(f"{prefix}._project_conv", f"{prefix}._bn2", y, (out, wide, 1, 1), active=False)
        return self.b.add("Add", [x, y], f"{prefix}.residual") if stride == 1 and start == out else y

    def convolution(
        self,
        name: str,
        norm: str,
        x: str,
        shape: tuple[int, int, int, int],
        stride: int = 1,
        groups: int = 1,
        active: bool = True,
    ) -> str:
        """Add a convolution with its batch norm folded in, and ReLU6."""
        weight, bias = self._folded(name, norm, shape)
        out, kernel, before = shape[0], shape[2], self.size
        self.size = -(-before // stride)
        missing = max((self.size - 1) * stride + kernel - before, 0)
        pads = (missing // 2,) * 2 + (missing - missing // 2,) * 2
        b = self.b
        b.weights[name] = weight
        b.layers.append(
            Convolution(
                name=name,
                out_channels=out,
                in_channels=shape[1] * groups,
                kernel=(kernel, kernel),
                groups=groups,
                stride=(stride, stride),
                padding=(pads[0], pads[1], pads[2], pads[3]),
                out_height=self.size,
                out_width=self.size,
                bias=True,
            )
        )
        y = b.add(
            "Conv",
            [x, b.constant(f"{name}.bias", bias)],
            f"{name}.output",
            layer=name,
            attributes={"kernel_shape": (kernel, kernel), "strides": (stride, stride), "pads": pads, "group": groups},
        )
        if not active:
            return y
        b.activation(f"{name}.relu6", "relu6", out * self.size * self.size)
        low, high = (b.constant(f"relu6.{bound}", np.asarray(bound, np.float32)) for bound in (0, 6))
        return b.add("Clip", [y, low, high], f"{name}.relu6.output")

    def _folded(
        self, name: str, norm: str, shape: tuple[int, int, int, int]
    ) -> tuple[NDArray[np.float32], NDArray[np.float32]]:
        weight = float_tensor(self.tensors, f"{name}.weight", shape).reshape(shape[0], -1).astype(np.float64)
        scale, shift, mean, variance = (
            float_tensor(self.tensors, f"{norm}.{part}", shape[:1]).astype(np.float64)
            for part in ("weight", "bias", "running_mean", "running_var")
        )
        gain = scale / np.sqrt(variance + _EPSILON)
        return (weight * gain[:, None]).astype(np.float32), (shift - mean * gain).astype(np.float32)
