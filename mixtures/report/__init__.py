"""What people read about a mixture: statistics, warnings, comparisons."""
