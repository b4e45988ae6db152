// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_SNAPD_OPS_CLAIMS_H_
#define DAXSNAP_SNAPD_OPS_CLAIMS_H_

#include <sys/types.h>

#include <mutex>
#include <set>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"

namespace daxsnap {

// Which snapshot names and PIDs running operations work on. Thread-safe. It
// outlives its claims.
class Claims {
 public:
  // Gives back what was claimed when it goes. Movable; not thread-safe.
  class Claim {
   public:
    Claim(Claim&& other) noexcept;
    Claim& operator=(Claim&&) = delete;
    ~Claim();

    // Adds PIDs to the claim. ABORTED, BUSY if one is taken.
    absl::Status AddPids(const std::vector<pid_t>& pids);

   private:
    friend class Claims;
    Claim(Claims* claims, std::string name)
        : claims_(claims), name_(std::move(name)) {}

    Claims* claims_;
    std::string name_;
    std::vector<pid_t> pids_;
  };

  // ABORTED, BUSY if another operation has the name.
  absl::StatusOr<Claim> ClaimName(const std::string& name);

 private:
  std::mutex mutex_;
  std::set<std::string> names_;  // guarded by mutex_
  std::set<pid_t> pids_;         // guarded by mutex_
};

}  // namespace daxsnap

#endif  // DAXSNAP_SNAPD_OPS_CLAIMS_H_
