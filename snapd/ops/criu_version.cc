// SPDX-License-Identifier: Apache-2.0
#include "snapd/ops/criu_version.h"

#include <chrono>
#include <optional>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"

namespace daxsnap {
namespace {

absl::Duration SinceStart() {
  return absl::FromChrono(std::chrono::steady_clock::now().time_since_epoch());
}

}  // namespace

std::string CriuVersion::Known() const {
  const std::lock_guard lock(mutex_);
  return version_;
}

bool CriuVersion::FailedLately() const {
  const std::lock_guard lock(mutex_);
  return SinceStart() - failed_ < retry_after_;
}

std::string CriuVersion::Get() {
  if (std::string version = Known(); !version.empty()) return version;
  if (FailedLately()) return "";
  std::optional<std::string> version =
      asking_.Do(patience_, [this] { return Ask(); });
  if (version.has_value()) return *std::move(version);
  LogWarning("CRIU has not said its version yet; going on without it");
  return "";
}

std::string CriuVersion::Ask() {
  // Another one may just have done so.
  if (std::string version = Known(); !version.empty()) return version;
  if (FailedLately()) return "";
  auto version = engine_->Version();
  if (!version.ok()) {
    LogWarning(absl::StrCat("no version of CRIU, asked again in ",
                            absl::FormatDuration(retry_after_), ": ",
                            version.status().message()));
  }
  const std::lock_guard lock(mutex_);
  if (version.ok()) {
    version_ = *std::move(version);
  } else {
    failed_ = SinceStart();
  }
  return version_;
}

}  // namespace daxsnap
