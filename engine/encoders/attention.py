"""Self-attention with torch's own parameter names that can be differentiated forward."""

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn

from engine.errors import UsageError

# one value a thread: pages of several visitors compute at once
_plain: ContextVar[bool] = ContextVar("plain_attention", default=False)


@contextmanager
def plain_attention() -> Generator[None]:
    """Write attention as matrix products in this thread while the context lasts.

    The fused kernels have no forward-mode rule and no batching rule; matrix products have both.
    Enter it around ``torch.func.jvp``, ``vmap`` and ``jacfwd``. The values agree to rounding.

    Yields:
        Nothing.
    """
    token = _plain.set(True)
    try:
        yield
    finally:
        _plain.reset(token)


class SelfAttention(nn.Module):
    r"""Multi-head self-attention, a stand-in for ``nn.MultiheadAttention``.

    .. math:: \mathrm{softmax}(Q K^\top / \sqrt{d_h})\, V

    for each head, heads side by side, then ``out_proj``. Parameters keep the names
    ``in_proj_weight``, ``in_proj_bias``, ``out_proj.weight`` and ``out_proj.bias``; all products
    run on contiguous (N, T, d).

    Source:
        Vaswani et al. (2017), arXiv:1706.03762, Sec. 3.2.1, Eq. (1).
    """

    def __init__(self, attention: nn.MultiheadAttention) -> None:
        """Take over the parameters of torch's module.

        Args:
            attention: Self-attention, batch first, one width for queries, keys and values.

        Raises:
            UsageError: If the module is of another kind.
        """
        super().__init__()
        plain = attention.bias_k is None and not attention.add_zero_attn and attention.dropout == 0
        if not (attention.batch_first and attention._qkv_same_embed_dim and plain):
            raise UsageError(
                "this image tower uses a kind of attention that cannot be linearized here; "
                "choose a ViT or ConvNeXt encoder such as ViT-B-32-quickgelu"
            )
        self.num_heads = attention.num_heads
        self.in_proj_weight = attention.in_proj_weight
        self.in_proj_bias = attention.in_proj_bias
        self.out_proj = nn.Linear(
            attention.embed_dim,
            attention.embed_dim,
            bias=attention.out_proj.bias is not None,
            device="meta",
        )
        self.out_proj.weight = attention.out_proj.weight
        self.out_proj.bias = attention.out_proj.bias

    def forward(
        self,
        query: Tensor,
        key: Tensor,
        value: Tensor,
        need_weights: bool = False,
        attn_mask: Tensor | None = None,
    ) -> tuple[Tensor, None]:
        """Attend within each sequence.

        Args:
            query: Tokens that ask, shape (N, Q, d): those of ``key``, or some of them.
            key: Tokens, shape (N, T, d).
            value: The same tensor.
            need_weights: Must be false: the weights are not kept.
            attn_mask: Added to the scores before the soft-max, shape (Q, T).

        Returns:
            Tokens, shape (N, Q, d), and None in the place of the weights.

        Raises:
            ValueError: If keys and values differ, or if asked for the weights.
        """
        if key is not value or need_weights:
            raise ValueError("expected self-attention without weights: keys that are the values")
        N, Q, d = query.shape
        if query is key:
            q, k, v = self._heads(query, slice(None))
        else:
            (q,), (k, v) = self._heads(query, slice(d)), self._heads(key, slice(d, None))
        if _plain.get():
            scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
            scores = scores if attn_mask is None else scores + attn_mask
            mixed = scores.softmax(dim=-1) @ v
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
        mixed = mixed.transpose(1, 2).reshape(N, Q, d)
        return self.out_proj(mixed), None

    def _heads(self, tokens: Tensor, rows: slice) -> tuple[Tensor, ...]:
        """Return those of q, k, v whose rows of the weight are named, each (N, heads, T, d_h)."""
        N, T, d = tokens.shape
        projected = F.linear(tokens, self.in_proj_weight[rows], self.in_proj_bias[rows])
        parts = projected.reshape(N, T, -1, self.num_heads, d // self.num_heads)
        return parts.permute(2, 0, 3, 1, 4).unbind(0)


class ClassTokenBlock(ResidualAttentionBlock):
    """The last block of a tower that reads its class token alone: no other token is computed.

    The same function as open_clip's block at that token. It spares the queries, the output
    projection and the MLP of all other tokens, 10/12 of a block's products.
    """

    def forward(
        self,
        q_x: Tensor,
        k_x: Tensor | None = None,
        v_x: Tensor | None = None,
        attn_mask: Tensor | None = None,
    ) -> Tensor:
        """Return the class token, shape (N, 1, d), of tokens (N, T, d)."""
        normed = self.ln_1(q_x)
        mixed, _ = self.attn(normed[:, :1], normed, normed)
        x = q_x[:, :1] + self.ls_1(mixed)
        return x + self.ls_2(self.mlp(self.ln_2(x)))


def swap_attention(tower: nn.Module) -> None:
    """Replace every attention of an image tower by one that can be differentiated forward.

    The last block of a tower that reads its class token alone is told to compute no other. Names
    and values of the parameters stay. timm's own attention is told to leave the fused kernel.

    Args:
        tower: Image tower, changed in place.

    Raises:
        UsageError: If it holds attention of a kind with no forward-mode path.
    """
    for module in list(tower.modules()):
        if hasattr(module, "fused_attn"):  # timm's switch
            module.fused_attn = False
        if type(module).__name__ in {"AttentionPool2d", "Attention"} and not hasattr(
            module, "fused_attn"
        ):
            raise UsageError(
                "this image tower uses a kind of attention that cannot be linearized here; "
                "choose a ViT or ConvNeXt encoder such as ViT-B-32-quickgelu"
            )
        for name, child in list(module.named_children()):
            if isinstance(child, nn.MultiheadAttention):
                setattr(module, name, SelfAttention(child))
    if isinstance(tower, VisionTransformer) and tower.pool_type == "tok" and not tower.attn_pool:
        last = tower.transformer.resblocks[-1]
        if type(last) is ResidualAttentionBlock and not tower.output_tokens:
            last.__class__ = ClassTokenBlock
