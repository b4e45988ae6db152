// SPDX-License-Identifier: Apache-2.0
//
//   golden_image list FILE OFFSET    what the device in the file stores, as
//   text golden_image scrub FILE OFFSET   zeroes what it does not store
//
// Exit: 0; 1 the device is refused, or the file cannot be had; 64 usage.
#include <cstdlib>
#include <cstring>
#include <iostream>

#include "tests/golden/device_file.h"

int main(int argc, char** argv) {
  if (argc != 4 ||
      (std::strcmp(argv[1], "list") && std::strcmp(argv[1], "scrub"))) {
    std::cerr << "usage: golden_image list|scrub FILE OFFSET\n";
    return 64;
  }
  const bool scrub = std::strcmp(argv[1], "scrub") == 0;
  daxsnap::golden::DeviceFile device(argv[2],
                                     std::strtoull(argv[3], nullptr, 0), scrub);
  const daxsnap::golden::Verdict verdict = device.Verify();
  if (verdict.error != 0) {
    std::cerr << argv[2] << ": refused: " << verdict.why << "\n";
    return 1;
  }
  if (scrub)
    device.Scrub();
  else
    std::cout << device.List();
  return 0;
}
