"""The finite-width tangent kernel, its eigenfunctions, and where they live."""

from engine.ntk.energy import ARRANGEMENTS, BLOCKS, LocalEnergy
from engine.ntk.kept import keep_local_energies, keep_local_energy, kept_local_energy
from engine.ntk.kernels import READOUTS, Kernel, kernel, make_readout
from engine.ntk.measuring import local_energies, local_energy
from engine.ntk.plans import ALGORITHMS, Plan, plan
from engine.ntk.regression import dual_coefficients, predict
from engine.ntk.ring import ring_example
from engine.ntk.spectrum import effective_rank, eigenfunctions, right_singular, vector_energy

__all__ = [
    "ALGORITHMS",
    "ARRANGEMENTS",
    "BLOCKS",
    "READOUTS",
    "Kernel",
    "LocalEnergy",
    "Plan",
    "keep_local_energies",
    "keep_local_energy",
    "kept_local_energy",
    "dual_coefficients",
    "effective_rank",
    "eigenfunctions",
    "kernel",
    "local_energies",
    "local_energy",
    "make_readout",
    "plan",
    "predict",
    "right_singular",
    "ring_example",
    "vector_energy",
]
