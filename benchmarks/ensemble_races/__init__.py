"""Other ways to train many models at once, for ../ensemble.py."""
