"""The engine computes: data, encoders, task vectors, responses and measures; no page code."""
