// SPDX-License-Identifier: Apache-2.0
// fs_matrix: kmemfs as a filesystem, by system calls. Suite Posix holds on
// other filesystems too. How to run it: tests/vm/common/guest_main.h.
#include "tests/vm/common/guest_main.h"
#include "tests/vm/fs_matrix/support.h"

int main(int argc, char** argv) {
  return daxsnap::vmtest::GuestMain(argc, argv, daxsnap::vmtest::SetRoot);
}
