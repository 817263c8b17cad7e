"""Parts of the Merge page: methods, pinned settings, what can be taken away."""
