"""Parts of the Results page: one exhibit, and what can be taken away."""
