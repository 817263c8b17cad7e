"""The dashboard shows what the engine computes; it holds no maths."""
