"""Translations of foreign protocols. They decide nothing."""
