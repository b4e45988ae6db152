# SPDX-License-Identifier: Apache-2.0
"""tests/vm/zdtm/ways.py: what counts as worse than stock CRIU."""

import sys
import tempfile
import unittest
from pathlib import Path

TESTS = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(TESTS / "vm/zdtm"), str(TESTS / "vm/driver")]
import ways  # noqa: E402


def results(**given):
    return {(test, "h"): ways.Result(test, "h", result, "", 1.0) for test, result in given.items()}


class Differences(unittest.TestCase):
    def worse(self, stock, ours):
        return [line for line, is_worse in ways.differences(stock, ours) if is_worse]

    def test_equal_results_are_none(self):
        same = results(a="pass", b="fail", c="skip")
        self.assertEqual(list(ways.differences(same, same)), [])

    def test_a_pass_that_is_none_with_ours_is_worse(self):
        stock = results(a="pass", b="pass", c="pass")
        self.assertEqual(len(self.worse(stock, results(a="fail", b="skip", c="pass"))), 2)

    def test_a_test_that_was_not_run_is_worse(self):
        self.assertEqual(len(self.worse(results(a="pass", b="pass"), results(a="pass"))), 1)

    def test_a_pass_more_is_told_and_not_worse(self):
        told = list(ways.differences(results(a="fail"), results(a="pass")))
        self.assertEqual([is_worse for _, is_worse in told], [False])

    def test_a_state_that_does_not_pass_is_worse_though_stock_fails(self):
        fails = {("static/state-a", "h"): ways.Result("static/state-a", "h", "fail", "", 1.0)}
        self.assertEqual(len(self.worse(fails, fails)), 1)

    def test_the_last_results_of_the_tests_asked_for_are_read(self):
        with tempfile.TemporaryDirectory() as directory:
            path = Path(directory) / "a.jsonl"
            written = [*results(a="fail", b="fail", c="pass").values(), *results(a="pass").values()]
            lines = ['{"kernel": "k"}', *map(ways.to_line, written)]
            path.write_text("\n".join(lines))
            self.assertEqual(ways.read(path, {"kernel": "k"}, ["h"], ["a", "b"]), results(a="pass", b="fail"))
            with self.assertRaisesRegex(ValueError, "come to its end"):
                ways.read(path, {"kernel": "k"}, ["h"], [])
            with self.assertRaisesRegex(ValueError, "is of"):
                ways.read(path, {"kernel": "other"}, ["h"], ["a"])
            path.write_text("\n".join([*lines, '"complete"']))
            self.assertEqual(ways.read(path, {"kernel": "k"}, ["h"], []), results(a="pass", b="fail", c="pass"))
            self.assertEqual(ways.read(path, {"kernel": "k"}, ["ns"], []), {})


if __name__ == "__main__":
    unittest.main()
