"""The finite-width tangent kernel, its eigenfunctions, and where they live."""

from engine.ntk.kernels import READOUTS, Kernel, kernel
from engine.ntk.plans import ALGORITHMS, Plan, plan

__all__ = ["ALGORITHMS", "READOUTS", "Kernel", "Plan", "kernel", "plan"]
