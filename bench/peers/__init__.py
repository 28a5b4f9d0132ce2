"""The comparators, frozen: they change only when what they stand for does."""
