"""What weight decay will do in a training run: before it runs, and while it does."""

from .numbers import audit_numbers

__all__ = ["audit_numbers"]
