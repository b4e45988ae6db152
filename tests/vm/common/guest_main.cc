// SPDX-License-Identifier: Apache-2.0
#include "tests/vm/common/guest_main.h"

#include <gtest/gtest.h>

#include <cstdio>
#include <cstring>

namespace daxsnap::vmtest {
namespace {

int Usage(const char* program) {
  std::fprintf(stderr, "usage: %s [--mount DIR] --list | NAME...\n", program);
  return 64;
}

void List() {
  const auto* unit = testing::UnitTest::GetInstance();
  for (int s = 0; s < unit->total_test_suite_count(); ++s) {
    const auto* suite = unit->GetTestSuite(s);
    for (int t = 0; t < suite->total_test_count(); ++t) {
      std::printf("%s.%s\n", suite->name(), suite->GetTestInfo(t)->name());
    }
  }
}

}  // namespace

int GuestMain(int argc, char** argv,
              const std::function<void(std::string)>& set_mount) {
  testing::InitGoogleTest(&argc, argv);
  std::string mount = "/run/daxsnap/pool";
  std::string filter;
  int wanted = 0;
  for (int i = 1; i < argc; ++i) {
    if (std::strcmp(argv[i], "--mount") == 0) {
      if (++i == argc) return Usage(argv[0]);
      mount = argv[i];
    } else if (std::strcmp(argv[i], "--list") == 0) {
      List();
      return 0;
    } else if (argv[i][0] == '-') {
      return Usage(argv[0]);
    } else {
      filter += (filter.empty() ? "" : ":") + std::string(argv[i]);
      ++wanted;
    }
  }
  if (wanted == 0) return Usage(argv[0]);
  set_mount(mount);
  testing::GTEST_FLAG(filter) = filter;
  const int result = RUN_ALL_TESTS();
  const auto* unit = testing::UnitTest::GetInstance();
  if (unit->test_to_run_count() < wanted || unit->skipped_test_count() > 0) {
    std::fprintf(stderr, "%s: %d tests asked for, %d found, %d skipped\n",
                 argv[0], wanted, unit->test_to_run_count(),
                 unit->skipped_test_count());
    return 1;
  }
  return result == 0 ? 0 : 1;
}

}  // namespace daxsnap::vmtest
