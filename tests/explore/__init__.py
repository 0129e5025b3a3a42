"""Tests of `vlmill explore`."""
