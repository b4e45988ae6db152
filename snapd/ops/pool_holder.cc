// SPDX-License-Identifier: Apache-2.0
#include "snapd/ops/pool_holder.h"

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/log.h"
#include "snapd/ops/recovery.h"

namespace daxsnap {

absl::StatusOr<OpenPool*> PoolHolder::Get() {
  const std::lock_guard lock(mutex_);
  if (open_ != nullptr) return open_.get();
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
  open_ = std::move(open);
  return open_.get();
}

}  // namespace daxsnap
