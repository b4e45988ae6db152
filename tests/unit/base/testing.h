// SPDX-License-Identifier: Apache-2.0
//
// Directories and failures for tests.
#ifndef DAXSNAP_TESTS_UNIT_BASE_TESTING_H_
#define DAXSNAP_TESTS_UNIT_BASE_TESTING_H_

#include <sys/resource.h>

#include <string>

#include "base/files.h"

namespace daxsnap {

// A directory that goes with the object.
class TempDirectory {
 public:
  TempDirectory();
  TempDirectory(const TempDirectory&) = delete;
  TempDirectory& operator=(const TempDirectory&) = delete;
  ~TempDirectory();

  const std::string& path() const { return path_; }

 private:
  std::string path_;
};

// While it lives, this process gets no more descriptors: EMFILE.
class NoDescriptors {
 public:
  NoDescriptors();
  NoDescriptors(const NoDescriptors&) = delete;
  NoDescriptors& operator=(const NoDescriptors&) = delete;
  ~NoDescriptors();

 private:
  rlimit before_ = {};
};

// A failure of the file layer: `error` for every call of that kind on a name
// that ends like this, and never for others.
ScopedFileFault::Fault FailWith(int error, const std::string& call,
                                const std::string& name);

}  // namespace daxsnap

#endif  // DAXSNAP_TESTS_UNIT_BASE_TESTING_H_
