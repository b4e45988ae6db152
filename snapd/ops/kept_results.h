// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_SNAPD_OPS_KEPT_RESULTS_H_
#define DAXSNAP_SNAPD_OPS_KEPT_RESULTS_H_

#include <mutex>
#include <string>
#include <vector>

#include "base/unique_fd.h"
#include "daxsnap/internal/operation.pb.h"

namespace daxsnap {

// Records of restores that are done, for who asks again. They are of this boot
// only, and a full pool has no room for them, so they are kept in a directory
// of this machine; what that does not take is known as long as this snapd runs.
// Thread-safe.
class KeptResults {
 public:
  // Reads what an earlier snapd has left in `directory`, which is made; empty:
  // there is none.
  explicit KeptResults(const std::string& directory);

  void Add(internal::Operation record);
  void Remove(const std::string& uid);
  std::vector<internal::Operation> All() const;

 private:
  mutable std::mutex mutex_;
  UniqueFd directory_;
  std::vector<internal::Operation> records_;  // guarded by mutex_
};

}  // namespace daxsnap

#endif  // DAXSNAP_SNAPD_OPS_KEPT_RESULTS_H_
