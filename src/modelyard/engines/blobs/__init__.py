"""Bytes addressed by their SHA-256."""
