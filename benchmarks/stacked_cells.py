"""Several cells of a non-linear map at once, their weights stacked, against one after the other."""

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor
from torch.func import vmap

from engine.disentanglement.passes import Passes
from engine.encoders import plain_attention
from engine.responses import predictions

STACKS = (2, 4)


class Stacked:
    """Predictions of K merged models in one pass: every product takes a batch of K weights."""

    def __init__(self, passes: Passes, stack: int) -> None:
        """Prepare room for the weights.

        Args:
            passes: In float32; its images, heads and task vectors are used.
            stack: K, cells at once.
        """
        self.passes = passes
        self.theta = {
            key: value.expand(stack, *value.shape).clone() for key, value in passes.theta0.items()
        }

    @torch.no_grad()
    def outputs(
        self, cells: Sequence[Mapping[str, float]], names: Sequence[str]
    ) -> list[dict[str, Tensor]]:
        """Run K merged models.

        Args:
            cells: Alphas by task name, K of them.
            names: Of the tasks whose images are run.

        Returns:
            For each cell predictions by task, as ``Passes.outputs`` gives them.
        """
        for place, alphas in enumerate(cells):
            self.passes.merge(alphas)
            for key, value in self.passes.merged.items():
                self.theta[key][place].copy_(value)
        found: list[dict[str, Tensor]] = [{} for _ in cells]
        run = vmap(self.passes.encoder.features, in_dims=(0, None))
        for name in names:
            with plain_attention():  # the fused kernel has no batching rule
                parts = [run(self.theta, x).cpu().double() for x in self.passes.pieces[name]]
            scores = (torch.cat(parts, dim=1) @ self.passes.heads[name].T).float()  # (K, N, C)
            for table, each in zip(found, scores, strict=True):
                table[name] = predictions(each)
        return found


def bench_stacked(
    passes: Passes,
    cells: Sequence[Mapping[str, float]],
    repeats: int,
    timed: Callable[[Callable[[], object], torch.device], tuple[Tensor, object]],
    median: Callable[[list[Tensor]], Tensor],
) -> dict:
    """Time the same cells one after the other, and in stacks, in turns.

    Args:
        passes: In float32, their images prepared.
        cells: Alphas by task name; as many as a multiple of the largest stack.
        repeats: Of every route.
        timed: Of ``bench_xi``.
        median: Of ``bench_xi``.

    Returns:
        Wall and processor seconds a cell, ratios of one at a time over each stack, and how many
        predictions differ.
    """
    names, device = tuple(passes.heads), next(iter(passes.theta0.values())).device
    stacks = {stack: Stacked(passes, stack) for stack in STACKS}
    routes: dict[int, Callable] = {1: lambda: [passes.outputs(cell, names) for cell in cells]}
    for stack, made in stacks.items():
        groups = [cells[k : k + stack] for k in range(0, len(cells), stack)]
        routes[stack] = lambda made=made, groups=groups: [
            table for group in groups for table in made.outputs(group, names)
        ]
    spent: dict[int, list[Tensor]] = {stack: [] for stack in routes}
    answers = {stack: route() for stack, route in routes.items()}  # warms up, too
    for _ in range(repeats):
        for stack, route in routes.items():
            spent[stack].append(timed(route, device)[0])
    middle = {stack: median(seconds) / len(cells) for stack, seconds in spent.items()}
    total = sum(len(table) for cell in answers[1] for table in cell.values())
    return {
        "cells": len(cells),
        "a_cell": {str(stack): seconds.tolist() for stack, seconds in middle.items()},
        "ratio_one_over_stack": {
            str(stack): (middle[1] / middle[stack]).tolist() for stack in STACKS
        },
        "predictions_differing": {
            str(stack): [differing(answers[1], answers[stack]), total] for stack in STACKS
        },
    }


def differing(some: Sequence[Mapping[str, Tensor]], others: Sequence[Mapping[str, Tensor]]) -> int:
    """Count the predictions in which two routes differ."""
    return sum(
        int((one[name] != other[name]).sum())
        for one, other in zip(some, others, strict=True)
        for name in one
    )


def told(found: Mapping) -> str:
    """Return the figures as text."""
    lines = [f"several cells at once, {found['cells']} cells; wall (processor) seconds a cell:"]
    for stack, (wall, work) in found["a_cell"].items():
        line = f"  {stack} at once   {wall:.3f} ({work:.3f})"
        if stack in found["ratio_one_over_stack"]:
            ratio = found["ratio_one_over_stack"][stack]
            apart = found["predictions_differing"][stack]
            line += (
                f", {ratio[0]:.2f}x ({ratio[1]:.2f}x) one at a time, "
                f"{apart[0]} of {apart[1]} predictions differ"
            )
        lines.append(line)
    return "\n".join(lines)
