"""Measures in-context learning: score against the number of demonstrations, with intervals and a report."""
