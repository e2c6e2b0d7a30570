"""The benchmark: `python -m bench`. docs/performance.md tells what it measures and shows."""
