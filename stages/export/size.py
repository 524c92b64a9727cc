"""How large a network is: parameters and multiply-adds, from its layers."""

import math

import keras


def parameters(network: keras.Model) -> int:
    """Numbers that the network holds, batch-norm statistics included."""
    return int(network.count_params())


def multiply_adds(network: keras.Model) -> int:
    """Multiply-adds of one image through every kernel of the network.

    Those of convolutions and dense layers, as is usual; normalisation, activation and
    pooling, a hundredth of them, are not counted.

    Args:
        network: A functional model with a fixed input size.
    """
    return sum(_of_layer(layer) for layer in network.layers)


def _of_layer(layer: keras.Layer) -> int:
    """Each output pixel (each input pixel, if transposed) takes the whole kernel."""
    if isinstance(layer, keras.Model):  # a mirrored network runs itself once more
        return multiply_adds(layer)
    places = math.prod(_spatial(layer.output.shape))
    match layer:
        case keras.layers.Conv2DTranspose() | keras.layers.Conv1DTranspose():
            places = math.prod(_spatial(layer.input.shape))
            kernels = [layer.kernel]
        case keras.layers.SeparableConv2D() | keras.layers.SeparableConv1D():
            kernels = [layer.depthwise_kernel, layer.pointwise_kernel]
        case keras.layers.Conv1D() | keras.layers.Conv2D() | keras.layers.Conv3D():
            kernels = [layer.kernel]
        case keras.layers.DepthwiseConv2D() | keras.layers.DepthwiseConv1D():
            kernels = [layer.kernel]
        case keras.layers.Dense():
            kernels = [layer.kernel]
        case _:
            return 0
    return places * sum(math.prod(kernel.shape) for kernel in kernels)


def _spatial(shape: tuple[int | None, ...]) -> list[int]:
    """Sides of a tensor without batch and channels."""
    return [side for side in shape[1:-1] if side is not None]
