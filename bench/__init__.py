"""What is measured, side by side with its comparators: `python -m bench`."""
