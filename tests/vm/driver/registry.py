# SPDX-License-Identifier: Apache-2.0
"""The tests written in Python, by name."""

TESTS = {}


def test(name, *, timeout):
    """Registers a function of one argument, the machine. CMake reads the same line
    to make a ctest test of it; timeout, in seconds, is for ctest."""
    del timeout

    def register(function):
        if name in TESTS:
            raise ValueError(f"two tests are called {name}")
        TESTS[name] = function
        return function

    return register
