"""A GPT-2 in PyTorch, as its users write it: what `tools.benchmark_train` is compared with. Wants `torch`.

Shapes: B rows, T positions, D embed, H heads, K head size.
"""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F

from icl.model import ModelConfig


class TorchBlock(torch.nn.Module):
    """Pre-norm attention and MLP; queries, keys and values are one matmul."""

    def __init__(self, config: ModelConfig) -> None:
        """Weights as PyTorch draws them."""
        super().__init__()
        width = config.embed_dim
        self.heads = config.num_heads
        self.attention_norm = torch.nn.LayerNorm(width)
        self.qkv = torch.nn.Linear(width, 3 * width)
        self.out = torch.nn.Linear(width, width)
        self.mlp_norm = torch.nn.LayerNorm(width)
        self.up = torch.nn.Linear(width, config.hidden_dim)
        self.down = torch.nn.Linear(config.hidden_dim, width)

    def forward(self, x_BTD: Any) -> Any:
        """[batch, length, embed] -> the same."""
        x_BTD = x_BTD + self.out(self.attend(self.qkv(self.attention_norm(x_BTD))))
        return x_BTD + self.down(F.gelu(self.up(self.mlp_norm(x_BTD)), approximate="tanh"))

    def attend(self, qkv: Any) -> Any:
        """Queries, keys and values side by side -> [batch, length, embed]."""
        rows, length, _ = qkv.shape
        q, k, v = (x.view(rows, length, self.heads, -1).transpose(1, 2) for x in qkv.chunk(3, dim=-1))
        o = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        return o.transpose(1, 2).reshape(rows, length, -1)


class TorchGPT(torch.nn.Module):
    """Tables of tokens and positions, blocks, norm, and the token table again as the head."""

    def __init__(self, config: ModelConfig) -> None:
        """Weights as PyTorch draws them, until `load`."""
        super().__init__()
        self.tokens = torch.nn.Embedding(config.vocab_size, config.embed_dim)
        self.positions = torch.nn.Embedding(config.max_length, config.embed_dim)
        self.blocks = torch.nn.ModuleList([TorchBlock(config) for _ in range(config.num_layers)])
        self.final_norm = torch.nn.LayerNorm(config.embed_dim)

    def loss(self, inputs: Any, targets: Any) -> Any:
        """Mean cross-entropy of the targets in nats."""
        x_BTD = self.tokens(inputs) + self.positions(torch.arange(inputs.shape[1]))
        for block in self.blocks:
            x_BTD = block(x_BTD)
        logits = F.linear(self.final_norm(x_BTD), self.tokens.weight)
        return F.cross_entropy(logits.view(-1, logits.shape[-1]), targets.view(-1))

    def load(self, params: dict[str, Any]) -> None:
        """Takes weights in our layout, as numpy arrays."""
        self.tokens.weight.data = _tensor(params["embedding"]["tokens"])
        self.positions.weight.data = _tensor(params["embedding"]["positions"])
        _set_norm(self.final_norm, params["final_norm"])
        layers = params["layers"]
        for i, block in enumerate(self.blocks):
            attention = layers["attention"]
            parts = [{k: v[i] for k, v in attention[name].items()} for name in ("query", "key", "value")]
            joined = {k: np.concatenate([part[k] for part in parts], axis=-1) for k in ("kernel", "bias")}
            _set_linear(block.qkv, joined)
            _set_linear(block.out, {k: v[i] for k, v in attention["out"].items()})
            for name in ("up", "down"):
                _set_linear(getattr(block, name), {k: v[i] for k, v in layers["mlp"][name].items()})
            for name in ("attention_norm", "mlp_norm"):
                _set_norm(getattr(block, name), {k: v[i] for k, v in layers[name].items()})


def parameter_groups(gpt: TorchGPT, decay: float) -> list[dict[str, Any]]:
    """Matrices and the token table decay; norms, biases and the position table do not."""
    groups: dict[bool, list[Any]] = {True: [], False: []}
    for name, parameter in gpt.named_parameters():
        groups[parameter.ndim == 2 and not name.startswith("positions")].append(parameter)
    return [
        {"params": groups[True], "weight_decay": decay},
        {"params": groups[False], "weight_decay": 0.0},
    ]


def _tensor(array: Any) -> Any:
    return torch.from_numpy(np.array(array, np.float32))


def _set_linear(linear: Any, weights: dict[str, Any]) -> None:
    linear.weight.data = _tensor(weights["kernel"].T.copy())
    linear.bias.data = _tensor(weights["bias"])


def _set_norm(norm: Any, weights: dict[str, Any]) -> None:
    norm.weight.data, norm.bias.data = _tensor(weights["scale"]), _tensor(weights["bias"])
