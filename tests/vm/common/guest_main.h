// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_TESTS_VM_COMMON_GUEST_MAIN_H_
#define DAXSNAP_TESTS_VM_COMMON_GUEST_MAIN_H_

#include <functional>
#include <string>

namespace daxsnap::vmtest {

// main() of a GoogleTest program that runs in the machine:
//
//   PROGRAM [--mount DIR] --list      prints the names of the tests
//   PROGRAM [--mount DIR] NAME...     runs these tests
//
// DIR (default /run/daxsnap/pool) is a mounted kmemfs and is given to
// `set_mount`. Returns 0: all passed; 1: one failed, was skipped or does not
// exist; 64: usage.
int GuestMain(int argc, char** argv,
              const std::function<void(std::string)>& set_mount);

}  // namespace daxsnap::vmtest

#endif  // DAXSNAP_TESTS_VM_COMMON_GUEST_MAIN_H_
