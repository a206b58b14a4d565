"""What we measure ourselves with: `python -m benchmarks.NAME [--quick] [--json FILE]` prints one table."""
