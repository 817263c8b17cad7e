"""Self-attention with torch's own parameter names that can be differentiated forward."""

from collections.abc import Generator
from contextlib import contextmanager
from contextvars import ContextVar

import torch.nn.functional as F
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
            query: Tokens, shape (N, T, d).
            key: The same tensor.
            value: The same tensor.
            need_weights: Must be false: the weights are not kept.
            attn_mask: Added to the scores before the soft-max, shape (T, T).

        Returns:
            Tokens, shape (N, T, d), and None in the place of the weights.

        Raises:
            ValueError: If asked for cross-attention or for the weights.
        """
        if key is not query or value is not query or need_weights:
            raise ValueError("expected self-attention without weights: one tensor thrice")
        N, T, d = query.shape
        qkv = F.linear(query, self.in_proj_weight, self.in_proj_bias)
        qkv = qkv.reshape(N, T, 3, self.num_heads, d // self.num_heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (N, heads, T, d / heads)
        if _plain.get():
            scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-2, -1)
            scores = scores if attn_mask is None else scores + attn_mask
            mixed = scores.softmax(dim=-1) @ v
        else:
            mixed = F.scaled_dot_product_attention(q, k, v, attn_mask=attn_mask)
        mixed = mixed.transpose(1, 2).reshape(N, T, d)
        return self.out_proj(mixed), None


def swap_attention(tower: nn.Module) -> None:
    """Replace every attention of an image tower by one that can be differentiated forward.

    Names and values of the parameters stay. timm's own attention is told to leave the fused kernel.

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
