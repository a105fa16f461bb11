"""What experiments share: laws of loss against scale, and what trained models compute inside.

At the edge of the package: it reads runs and checkpoints, and nothing else imports it.
"""
