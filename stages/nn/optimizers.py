"""Optimisers: every public function is a choice of `train.optimizer`."""

import math

import keras
from keras import ops

from stages.core.params import TrainParams


def adam(params: TrainParams) -> keras.optimizers.Optimizer:
    """Adam, as in the article."""
    return keras.optimizers.Adam(
        params.learning_rate, params.beta_1, params.beta_2, **_averaging(params)
    )


def muon(params: TrainParams) -> keras.optimizers.Optimizer:
    """Muon on the kernels of convolutions, Adam on all else.

    Title: Muon: An optimizer for hidden layers in neural networks, Jordan et al. 2024,
    https://kellerjordan.github.io/posts/muon. Keras has it for matrices; here a kernel
    (H, W, I, O) is one of H W I rows and O columns. Heads stay with Adam, as its
    authors advise.
    """
    return _ConvolutionMuon(
        learning_rate=params.learning_rate,
        adam_beta_1=params.beta_1,
        adam_beta_2=params.beta_2,
        weight_decay=None,
        adam_weight_decay=None,
        name="muon",
        exclude_layers=["head_"],
        **_averaging(params),
    )


def _averaging(params: TrainParams) -> dict[str, object]:
    """Arguments that have an optimiser average the weights over steps."""
    return {
        "use_ema": params.ema_momentum > 0,
        "ema_momentum": params.ema_momentum or 0.99,
        "ema_overwrite_frequency": None,
    }


class _ConvolutionMuon(keras.optimizers.Muon):  # type: ignore[misc]
    def _should_use_adamw(self, variable: keras.Variable) -> bool:
        is_head = any(name in variable.path for name in self.exclude_layers)
        return len(variable.shape) != 4 or is_head

    def _muon_update_step(
        self,
        gradient: keras.KerasTensor,
        variable: keras.Variable,
        lr: keras.KerasTensor,
        m: keras.Variable,
    ) -> None:
        self.assign_add(m, gradient + m * (self.momentum - 1))
        ahead = gradient + m * self.momentum
        matrix = ops.reshape(ahead, (-1, variable.shape[-1]))
        update = self.zeropower_via_newtonschulz5(matrix, self.ns_steps)
        # The size of Adam's updates, so that both share one rate (arXiv 2502.16982).
        scale = self.rms_rate * math.sqrt(max(matrix.shape))
        self.assign_sub(variable, lr * scale * ops.reshape(update, variable.shape))
