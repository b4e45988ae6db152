# SPDX-License-Identifier: Apache-2.0
"""scripts/lib/junit-sum: only what ran and succeeded has passed."""

import subprocess
import tempfile
import unittest
from pathlib import Path

SUM = Path(__file__).resolve().parent.parent.parent / "scripts" / "lib" / "junit-sum"


class Sum(unittest.TestCase):
    def run_sum(self, *reports):
        with tempfile.TemporaryDirectory() as directory:
            paths = []
            for number, text in enumerate(reports):
                paths.append(Path(directory) / f"{number}.xml")
                if text is not None:
                    paths[-1].write_text(text)
            return subprocess.run([SUM, *paths], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def sum(self, *reports):
        return self.run_sum(*reports).stdout.strip()

    def suite(self, *states):
        cases = "".join(f'<testcase name="t{i}" status="{s}"/>' for i, s in enumerate(states))
        return f'<testsuite tests="{len(states)}">{cases}</testsuite>'

    def test_adds_reports(self):
        self.assertEqual(self.sum(self.suite("run", "run"), self.suite("run", "fail")), "3 1")

    def test_skipped_and_disabled_count_as_failed(self):
        self.assertEqual(self.sum(self.suite("run", "notrun", "disabled")), "1 2")

    def test_missing_broken_and_empty_reports_count_as_failed(self):
        self.assertEqual(self.sum(None, "<broken", self.suite()), "0 3")

    def test_says_how_what_failed_ended(self):
        report = ('<testsuite><testcase name="a" status="fail"><system-out>one\n\ntwo</system-out></testcase>'
                  '<testcase name="b" status="run"><system-out>three</system-out></testcase></testsuite>')
        self.assertEqual(self.run_sum(report).stderr, "did not pass: a: fail\n    one\n    two\n")


if __name__ == "__main__":
    unittest.main()
