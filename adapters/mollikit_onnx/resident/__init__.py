"""Blocks of points that a graph draws, moves and reduces itself, where the model lives."""
