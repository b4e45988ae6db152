// SPDX-License-Identifier: Apache-2.0
// mm_matrix: what capture and zero-copy read promise, in the real kernel. How
// to run it: tests/vm/common/guest_main.h.
#include "tests/vm/common/guest_main.h"
#include "tests/vm/mm_matrix/support.h"

int main(int argc, char** argv) {
  return daxsnap::vmtest::GuestMain(argc, argv, daxsnap::vmtest::SetMountPoint);
}
