"""Functions in context: prompts of points and values of a function, and a transformer that learns them.

After Garg et al. 2022 (arXiv 2208.01066). Real numbers enter and leave the stacked layers of `icl.model`
through linear layers; optimizer, loop and checkpoints are those of `icl.training`.
"""
