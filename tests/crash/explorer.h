// SPDX-License-Identifier: Apache-2.0
//
// Whether what a crash leaves of a kmemfs is what it may.
#ifndef DAXSNAP_TESTS_CRASH_EXPLORER_H_
#define DAXSNAP_TESTS_CRASH_EXPLORER_H_

#include <string>

#include "tests/crash/crash_states.h"
#include "tests/crash/model_fs.h"

namespace daxsnap::crash {

// Recovers from each crash state; it has to be the last committed state of the
// model, or the one that is being committed.
class Explorer : public CrashStates {
 public:
  using CrashStates::CrashStates;

  void Explore(const Device& device, const ModelFs& fs);
  Bytes RandomCrash(const Device& device, const ModelFs& fs);

 private:
  std::string Check(const Bytes& image) override;
  bool ZeroesFirst() const override { return true; }
  std::string CheckState(const format::Recovery& recovery,
                         const kmemfs_media& media);
  std::string CheckDamaged(const Bytes& image, unsigned int ruling);
  std::string CheckAgain(const format::Recovery& first,
                         const Bytes& image) const;

  const ModelFs* fs_ = nullptr;
};

}  // namespace daxsnap::crash

#endif  // DAXSNAP_TESTS_CRASH_EXPLORER_H_
