"""Transformers over token ids, differentiated at their embeddings."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional


class BertLayer(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.query, self.key, self.value, self.out = (nn.Linear(width, width) for _ in range(4))
        self.attended = nn.LayerNorm(width, eps=1e-12)
        self.wide, self.narrow = nn.Linear(width, 4 * width), nn.Linear(4 * width, width)
        self.done = nn.LayerNorm(width, eps=1e-12)

    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        def by_head(y: Tensor) -> Tensor:
            return y.unflatten(-1, (self.heads, -1)).transpose(1, 2)

        query, key, value = (by_head(part(x)) for part in (self.query, self.key, self.value))
        y = functional.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = self.attended(x + self.out(y.transpose(1, 2).flatten(2)))
        return self.done(x + self.narrow(functional.gelu(self.wide(x))))


class Bert(nn.Module):
    """Devlin et al. 2019, "BERT": token ids and a mask of ones to logits."""

    def __init__(
        self,
        width: int = 16,
        heads: int = 2,
        depth: int = 2,
        words: int = 50,
        longest: int = 16,
        classes: int = 5,
    ) -> None:
        super().__init__()
        self.words, self.places = nn.Embedding(words, width), nn.Embedding(longest, width)
        self.norm = nn.LayerNorm(width, eps=1e-12)
        self.layers = nn.ModuleList(BertLayer(width, heads) for _ in range(depth))
        self.pooler = nn.Linear(width, width)
        self.head = nn.Linear(width, classes)

    def forward(self, tokens: Tensor, mask: Tensor) -> Tensor:
        return self.behind(self.words(tokens), mask)

    def behind(self, embedded: Tensor, mask: Tensor) -> Tensor:
        """The net behind its word embeddings."""
        places = torch.arange(embedded.shape[1], device=embedded.device)
        x = self.norm(embedded + self.places(places))
        hidden = (1.0 - mask[:, None, None, :].to(x.dtype)) * -10000.0
        for layer in self.layers:
            x = layer(x, hidden)
        return self.head(torch.tanh(self.pooler(x[:, 0])))


def rotated(x: Tensor, cosine: Tensor, sine: Tensor) -> Tensor:
    """Su et al. 2021, "RoFormer": pairs of coordinates turned by an angle that grows with the place."""
    first, second = x.chunk(2, -1)
    return x * cosine + torch.cat([-second, first], -1) * sine


class WrittenOutRMSNorm(nn.RMSNorm):
    """Without torch's operator, which the older exporter does not know."""

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + self.eps) * self.weight


class GptBlock(nn.Module):
    def __init__(self, width: int, heads: int, longest: int, norm: type[nn.RMSNorm]) -> None:
        super().__init__()
        self.heads = heads
        self.before, self.after = norm(width, eps=1e-6), norm(width, eps=1e-6)
        self.join = nn.Linear(width, 3 * width, bias=False)
        self.out = nn.Linear(width, width, bias=False)
        self.gate, self.up = (nn.Linear(width, 2 * width, bias=False) for _ in range(2))
        self.down = nn.Linear(2 * width, width, bias=False)
        size = width // heads
        speeds = 10000.0 ** (-torch.arange(0, size, 2) / size)
        angles = torch.arange(longest)[:, None] * speeds
        angles = torch.cat([angles, angles], -1)
        self.register_buffer("cosine", angles.cos())
        self.register_buffer("sine", angles.sin())

    def forward(self, x: Tensor) -> Tensor:
        length = x.shape[1]
        parts = self.join(self.before(x)).unflatten(-1, (3, self.heads, -1)).permute(2, 0, 3, 1, 4)
        query, key, value = parts.unbind(0)
        query, key = (rotated(y, self.cosine[:length], self.sine[:length]) for y in (query, key))
        y = functional.scaled_dot_product_attention(query, key, value, is_causal=True)
        x = x + self.out(y.transpose(1, 2).flatten(2))
        z = self.after(x)
        # Shazeer 2020, "GLU Variants Improve Transformer".
        return x + self.down(functional.silu(self.gate(z)) * self.up(z))


class Gpt(nn.Module):
    """A decoder with rotary embedding, SwiGLU and a causal mask: token ids to logits at every place."""

    def __init__(
        self,
        width: int = 16,
        heads: int = 2,
        depth: int = 2,
        words: int = 50,
        longest: int = 16,
        norm: type[nn.RMSNorm] = nn.RMSNorm,
    ) -> None:
        super().__init__()
        self.words = nn.Embedding(words, width)
        self.blocks = nn.ModuleList(GptBlock(width, heads, longest, norm) for _ in range(depth))
        self.norm = norm(width, eps=1e-6)
        self.head = nn.Linear(width, words, bias=False)

    def forward(self, tokens: Tensor) -> Tensor:
        return self.behind(self.words(tokens))

    def behind(self, embedded: Tensor) -> Tensor:
        """The net behind its word embeddings."""
        x = embedded
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))
