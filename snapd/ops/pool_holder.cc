// SPDX-License-Identifier: Apache-2.0
#include "snapd/ops/pool_holder.h"

#include <optional>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/log.h"
#include "snapd/ops/recovery.h"

namespace daxsnap {

OpenPool* PoolHolder::open() const {
  const std::lock_guard lock(mutex_);
  return open_.get();
}

absl::StatusOr<OpenPool*> PoolHolder::Get() {
  if (OpenPool* there = open()) return there;
  auto opened = opening_.Do(patience_, [this] { return Open(); });
  if (opened.has_value()) return *std::move(opened);
  return MakeError({.code = absl::StatusCode::kUnavailable,
                    .reason = reason::kPoolMissing,
                    .message = "the pool is being attached, or what an earlier "
                               "snapd left is being finished",
                    .hint = "try again; if it stays so, see the log of snapd "
                            "and that of the kernel"});
}

absl::StatusOr<OpenPool*> PoolHolder::Open() {
  // Another one may just have done so.
  if (OpenPool* there = open()) return there;
  auto pool = opener_();
  if (!pool.ok()) return pool.status();
  auto open = std::make_unique<OpenPool>(*std::move(pool));
  absl::Status recovered =
      Recover(proc_, engine_, open->pool.get(), &open->catalog);
  if (!recovered.ok()) {
    LogError(absl::StrCat("staging of pool ", open->pool->path(),
                          " is not clean: ", recovered.message()));
  }
  LogInfo(absl::StrCat("pool ", open->pool->path(), " is open, ",
                       open->pool->is_kmemfs() ? "kmemfs" : "directory"));
  if (absl::Status status = open->pool->CheckWritable(); !status.ok())
    LogWarning(status.message());
  const std::lock_guard lock(mutex_);
  open_ = std::move(open);
  return open_.get();
}

}  // namespace daxsnap
