"""The only bridge from pages to the engine: caches, digests, tensors to arrays.

Nothing here imports torch before a function that needs it is called, so that the first page paints
while torch is still on the disk. Pages call ``compute.catalogue.…``, ``compute.merging.…``.
"""
