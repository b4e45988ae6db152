// SPDX-License-Identifier: Apache-2.0
#include "snapd/ops/pool_opening.h"

#include <system_error>
#include <utility>

#include "absl/strings/str_cat.h"
#include "base/log.h"

namespace daxsnap {

PoolOpening::PoolOpening(PoolHolder* pools, std::function<void()> ended) {
  // std::thread reports a lack of threads by an exception only.
  try {
    thread_ = std::thread([this, pools, ended = std::move(ended)] {
      if (auto open = pools->Get(); !open.ok()) {
        LogError(absl::StrCat("no pool: ", open.status().message()));
      }
      ended();
      end_.set_value();
    });
  } catch (const std::system_error& error) {
    // The first call opens the pool.
    LogError(absl::StrCat("no thread to open the pool: ", error.what()));
    ended();
    end_.set_value();
  }
}

PoolOpening::~PoolOpening() {
  if (thread_.joinable()) thread_.join();
}

bool PoolOpening::AwaitEnd(absl::Duration patience) const {
  return ended_.wait_for(absl::ToChronoMilliseconds(patience)) ==
         std::future_status::ready;
}

}  // namespace daxsnap
