"""The parts of the Disentanglement page: what is chosen, its maps, and what lies below them."""
