"""FLOPs of the matrix products of an XLA program; the TPU compiler writes them as convolutions."""

import math
import re

import numpy as np

from icl.planner.hlo_text import Computation, Instruction


def instruction_flops(computation: Computation, instruction: Instruction) -> int:
    """FLOPs of a `dot` or a `convolution`, a multiply-add as two; 0 for anything else."""
    if instruction.opcode == "dot":
        return _dot_flops(computation, instruction)
    if instruction.opcode == "convolution":
        return _convolution_flops(computation, instruction)
    return 0


def _dot_flops(computation: Computation, dot: Instruction) -> int:
    left = computation.operands(dot)[0].arrays[0].shape
    contracted = [int(axis) for axis in re.findall(r"\d+", dot.attribute("lhs_contracting_dims"))]
    return 2 * math.prod(dot.arrays[0].shape) * math.prod(left[axis] for axis in contracted)


def _convolution_flops(computation: Computation, convolution: Instruction) -> int:
    """Products with padding and with the holes of a dilated input are not counted.

    Batched matrix products become convolutions in which only one tap in many meets an input, so they matter.
    """
    operands = computation.operands(convolution)
    image, kernel = operands[0].arrays[0].shape, operands[1].arrays[0].shape
    result = convolution.arrays[0].shape
    image_dims, kernel_dims, result_dims = re.split(r"_|->", convolution.attribute("dim_labels"))
    window = dict(re.findall(r"(\w+)=(\S+)", convolution.attribute("window").strip("{}")))
    taps = 1
    for number in range(len(result) - 2):
        taps *= _taps(
            image[image_dims.index(str(number))],
            kernel[kernel_dims.index(str(number))],
            result[result_dims.index(str(number))],
            {name: value.split("x")[number] for name, value in window.items()},
        )
    outputs = result[result_dims.index("b")] * result[result_dims.index("f")]
    return 2 * outputs * kernel[kernel_dims.index("i")] * taps


def _taps(image: int, kernel: int, result: int, window: dict[str, str]) -> int:
    """Pairs of an output and a tap of the kernel that meet an element of the image, along one dimension."""
    before = int(window.get("pad", "0_0").split("_")[0])
    stride, dilation, holes = (int(window.get(name, "1")) for name in ("stride", "rhs_dilate", "lhs_dilate"))
    at = np.arange(result)[:, None] * stride + np.arange(kernel)[None, :] * dilation - before
    return int(np.sum((at % holes == 0) & (at >= 0) & (at // holes < image)))
