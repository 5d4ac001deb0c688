"""Tests that run in seconds: no server, no Docker engine."""

import os

import pytest

needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="needs root, to be somebody else")
