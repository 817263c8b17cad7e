"""Disentanglement error: how far task vectors change each other's models, Eq. (6) of the paper."""

from engine.disentanglement.distances import DISTANCES
from engine.disentanglement.keeping import (
    keep_map,
    kept_map,
    kept_maps,
    map_key,
    map_so_far,
    remembered_map,
)
from engine.disentanglement.linearized import (
    feature_products,
    linearized_diagonal,
    linearized_map,
    linearized_matrix,
)
from engine.disentanglement.maps import GRID, IMAGES, REACH, Diagonal, PairMatrix, XiMap, axis
from engine.disentanglement.nonlinear import nonlinear_diagonal, nonlinear_map, nonlinear_matrix

__all__ = [
    "DISTANCES",
    "GRID",
    "IMAGES",
    "REACH",
    "Diagonal",
    "PairMatrix",
    "XiMap",
    "axis",
    "feature_products",
    "keep_map",
    "kept_map",
    "kept_maps",
    "linearized_diagonal",
    "linearized_map",
    "linearized_matrix",
    "map_key",
    "map_so_far",
    "nonlinear_diagonal",
    "nonlinear_map",
    "nonlinear_matrix",
    "remembered_map",
]
