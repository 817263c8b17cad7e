"""The parts of the Gradients page: what is chosen, its four sections, and work in progress."""
