"""Scores and pictures of predicted masks."""
