"""Throwaway servers, made from Debian and PyPI packages alone, for the demo, the tests and the benchmarks."""
