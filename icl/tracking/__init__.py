"""Where a run can be watched: TensorBoard's event files, and Weights & Biases.

What is shown there, training and evaluation decide.
"""
