# SPDX-License-Identifier: Apache-2.0
"""tests/vm/mm_selftests/results.py."""

import sys
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "vm/mm_selftests"))
from results import FAIL, OK, SKIP, XFAIL, Result, differences, parse, tally  # noqa: E402

COW = """TAP version 13
# [INFO] huge zeropage is enabled
1..4
# [RUN] Basic COW ... with base page
ok 1 No leak from parent into child
# [RUN] Basic COW ... with hugetlb
ok 2 # SKIP need more free huge pages
# [RUN] vmsplice ... with hugetlb
ok 3 # XFAIL Leak from child into parent
# [RUN] collapsing
not ok 4 Leak from parent into child
"""
MREMAP = """ok 1 # XFAIL mremap - overlapping
ok 2 8KB mremap
"""
UFFD = """Testing UFFDIO_API (with syscall)... done
Testing poison on hugetlb... skipped [reason: memory allocation failed]
Testing move on anon... failed [reason: nothing moved]
Userfaults unit tests: pass=1, skip=1, fail=1 (total=3)
"""
KHUGEPAGED = """
Run test: collapse_full (khugepaged:anon)
Collapse fully populated PTE table....\x1b[32m OK\x1b[0m

Run test: collapse_fork (madvise:anon)
Check if parent still has huge page... \x1b[31mFail\x1b[0m
Check page content... \x1b[32mOK\x1b[0m
"""


class Results(unittest.TestCase):
    def verdicts(self, text):
        return [(r.name, r.verdict) for r in parse(text)]

    def test_reads_tap(self):
        self.assertEqual(self.verdicts(COW), [
            ("1 Basic COW ... with base page", OK), ("2 Basic COW ... with hugetlb", SKIP),
            ("3 vmsplice ... with hugetlb", XFAIL), ("4 collapsing", FAIL)])
        self.assertEqual(parse(COW)[1].reason, "need more free huge pages")
        self.assertEqual(self.verdicts(MREMAP), [("1 mremap - overlapping", XFAIL), ("2 8KB mremap", OK)])

    def test_reads_what_is_no_tap(self):
        self.assertEqual(self.verdicts(UFFD), [
            ("UFFDIO_API (with syscall)", OK), ("poison on hugetlb", SKIP), ("move on anon", FAIL)])
        self.assertEqual(self.verdicts(KHUGEPAGED), [
            ("collapse_full (khugepaged:anon)", OK), ("collapse_fork (madvise:anon)", FAIL)])

    def test_counts(self):
        self.assertEqual(tally(parse(COW)), "1 ok, 1 xfail, 1 skip, 1 not ok")
        self.assertEqual(tally([]), "nothing")

    def test_finds_every_difference(self):
        plain = parse(COW)
        self.assertEqual(differences(plain, plain), [])
        self.assertEqual(len(differences(plain, plain[:3])), 1)
        worse = [Result(r.name, FAIL) for r in plain]
        self.assertEqual(len(differences(plain, worse)), 3)

    def test_stored_pages_need_not_be_collapsed(self):
        plain = [Result("1 collapsing", OK)]
        refused = [Result("1 collapsing", SKIP, "MADV_COLLAPSE failed: Resource temporarily unavailable")]
        self.assertEqual(len(differences(plain, refused)), 1)
        self.assertEqual(differences(plain, refused, stored=True), [])
        self.assertEqual(len(differences(plain, [Result("1 collapsing", SKIP, "other")], stored=True)), 1)

    def test_what_was_not_swapped_out_tells_nothing(self):
        ok, skipped = Result("1 swapped", OK), Result("1 swapped", SKIP, "MADV_PAGEOUT did not work, is swap enabled?")
        self.assertEqual(differences([ok], [skipped]) + differences([skipped], [ok]), [])
        self.assertEqual(len(differences([skipped], [Result("1 swapped", FAIL)])), 1)


unittest.main()
