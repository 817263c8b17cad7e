"""Frozen classification heads: class names and templates through the text tower, once."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from engine.errors import MissingDataError, UsageError

if TYPE_CHECKING:
    from engine.tasks import Task


class TextTower:
    """Text tower and tokenizer of one encoder; keeps the heads it has made.

    Runs on the CPU in float32 whatever the image tower does, so that a head has the same bits
    everywhere.
    """

    def __init__(self, model: nn.Module, tokenizer: Callable[[Sequence[str]], Tensor]) -> None:
        """Hold a model whose ``encode_text`` works and its tokenizer.

        Args:
            model: open_clip model; its image tower is not used and may be gone.
            tokenizer: Texts to token numbers, shape (number of texts, context).
        """
        self._model: nn.Module | None = model.eval()
        self._tokenizer = tokenizer
        self._heads: dict[tuple, Tensor] = {}

    def of(self, task: "Task") -> Tensor:
        """Give the frozen head of a task.

        Args:
            task: Class names and templates.

        Returns:
            Unit rows, shape (C, d), float32 on the CPU.
        """
        return self.head(task.classnames, task.templates)

    def mark(self, task: "Task") -> list[str]:
        """Return nothing: the weights and the words say all of a head."""
        return []

    def head(self, classnames: Sequence[str], templates: Sequence[str]) -> Tensor:
        r"""Make the frozen head of one task, or give back the one already made.

        .. math:: h_c = \frac{m_c}{\lVert m_c \rVert}, \quad
            m_c = \frac{1}{M} \sum_m \frac{g(t_m(c))}{\lVert g(t_m(c)) \rVert}

        Args:
            classnames: C names in English.
            templates: M templates, each with one ``{}``.

        Returns:
            Unit rows, shape (C, d), float32 on the CPU.

        Raises:
            UsageError: If there is no class, no template, or a template without ``{}``.
            MissingDataError: If the text tower was freed before this head was made.

        Source:
            Radford et al. (2021), arXiv:2103.00020, Sec. 3.1.4 (ensembling over templates in
            embedding space).
        """
        key = (tuple(classnames), tuple(templates))
        if key not in self._heads:
            self._heads[key] = self._make(*key)
        return self._heads[key]

    def _make(self, classnames: tuple[str, ...], templates: tuple[str, ...]) -> Tensor:
        """Return a head made class by class, so that a class has the same bits in any task.

        Raises:
            UsageError: If there is nothing to embed.
            MissingDataError: If the text tower was freed.
        """
        if not classnames or not templates or any("{}" not in t for t in templates):
            raise UsageError(
                f"a head needs class names and templates that each hold {{}}, got "
                f"{len(classnames)} classes and templates {list(templates)[:3]}; mend the task"
            )
        if self._model is None:
            raise MissingDataError(
                "the text tower was freed before this head was made; load the encoder again"
            )
        rows = []
        with torch.no_grad():
            for name in classnames:
                tokens = self._tokenizer([t.replace("{}", name) for t in templates])
                embedded = F.normalize(self._model.encode_text(tokens), dim=-1)  # (M, d)
                rows.append(F.normalize(embedded.mean(dim=0), dim=-1))
        return torch.stack(rows)

    def free(self) -> None:
        """Give the memory of the text tower back; heads already made stay."""
        self._model = None
