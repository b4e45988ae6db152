// SPDX-License-Identifier: Apache-2.0
#include "snapd/ops/claims.h"

#include <utility>

#include "absl/strings/str_cat.h"
#include "base/errors.h"

namespace daxsnap {
namespace {

absl::Status Busy(std::string message, std::string key, std::string value) {
  return MakeError({.code = absl::StatusCode::kAborted,
                    .reason = reason::kBusy,
                    .message = std::move(message),
                    .hint = "try again when the other call has ended",
                    .metadata = {{std::move(key), std::move(value)}}});
}

}  // namespace

Claims::Claim::Claim(Claim&& other) noexcept
    : claims_(std::exchange(other.claims_, nullptr)),
      name_(std::move(other.name_)),
      pids_(std::move(other.pids_)) {}

Claims::Claim::~Claim() {
  if (claims_ == nullptr) return;
  const std::lock_guard lock(claims_->mutex_);
  claims_->names_.erase(name_);
  for (const pid_t pid : pids_) claims_->pids_.erase(pid);
}

absl::Status Claims::Claim::AddPids(const std::vector<pid_t>& pids) {
  const std::lock_guard lock(claims_->mutex_);
  for (const pid_t pid : pids) {
    if (claims_->pids_.contains(pid)) {
      return Busy(absl::StrCat("another call works on pid ", pid), "pid",
                  absl::StrCat(pid));
    }
  }
  for (const pid_t pid : pids) {
    claims_->pids_.insert(pid);
    pids_.push_back(pid);
  }
  return absl::OkStatus();
}

absl::StatusOr<Claims::Claim> Claims::ClaimName(const std::string& name) {
  const std::lock_guard lock(mutex_);
  if (!names_.insert(name).second) {
    return Busy(absl::StrCat("another call works on snapshot ", name), "name",
                name);
  }
  return Claim(this, name);
}

}  // namespace daxsnap
