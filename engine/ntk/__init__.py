"""The finite-width tangent kernel, its eigenfunctions, and where they live."""

from engine.ntk.contents import Content, content_key, content_of, drawn_from
from engine.ntk.draws import choose_logits
from engine.ntk.energy import ARRANGEMENTS, BLOCKS, LocalEnergy
from engine.ntk.kept import (
    energy_entries,
    keep_local_energies,
    keep_local_energy,
    kept_local_energy,
    read_energy,
)
from engine.ntk.kernels import READOUTS, Kernel, kernel, make_readout
from engine.ntk.lookup import Wanted, answers, listed, outdated, read_answer, recognised
from engine.ntk.measuring import local_energies, local_energy
from engine.ntk.plans import ALGORITHMS, Plan, parts_held, plan
from engine.ntk.regression import dual_coefficients, fine_tuned, predict
from engine.ntk.ring import ring_example
from engine.ntk.spectrum import effective_rank, eigenfunctions, right_singular, vector_energy

__all__ = [
    "ALGORITHMS",
    "ARRANGEMENTS",
    "BLOCKS",
    "Content",
    "READOUTS",
    "Kernel",
    "LocalEnergy",
    "Plan",
    "Wanted",
    "answers",
    "choose_logits",
    "content_key",
    "content_of",
    "drawn_from",
    "energy_entries",
    "keep_local_energies",
    "keep_local_energy",
    "kept_local_energy",
    "dual_coefficients",
    "effective_rank",
    "fine_tuned",
    "eigenfunctions",
    "kernel",
    "listed",
    "local_energies",
    "local_energy",
    "make_readout",
    "outdated",
    "parts_held",
    "plan",
    "predict",
    "read_answer",
    "read_energy",
    "recognised",
    "right_singular",
    "ring_example",
    "vector_energy",
]
