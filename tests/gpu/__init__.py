"""The GPU ladder: see conftest.py."""
