// SPDX-License-Identifier: Apache-2.0
//
// Where files are that a boot does not bring back: memory under whatever name.
#ifndef DAXSNAP_HOST_TASK_VOLATILE_PLACE_H_
#define DAXSNAP_HOST_TASK_VOLATILE_PLACE_H_

#include <sys/types.h>

#include <map>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"
#include "absl/time/time.h"
#include "host/task/proc.h"
#include "host/task/stat_paths.h"
#include "host/task/tmpfiles.h"
#include "host/task/tree_files.h"

namespace daxsnap {

// Judges file systems by what is below them: an overlay by its upper layer, a
// block device by its driver, a loop device by its file. Not thread-safe.
class VolatilePlaces {
 public:
  // `rules` must outlive it. `sys` is another directory in tests.
  VolatilePlaces(const ProcFs& proc, const TmpfilesRules& rules,
                 absl::Duration timeout = kAnswerTimeout,
                 std::string sys = "/sys");

  // Where the file is: "on tmpfs", "on zram0, which is memory"; empty if its
  // file system keeps it over a boot. On a layer that a boot empties only what
  // is known to be of that layer counts. UNAVAILABLE, OVERLOADED if a file
  // system does not answer.
  absl::StatusOr<std::string> WhereLost(const UsedFile& file);

 private:
  absl::StatusOr<std::string> OnMount(const std::string& type, dev_t device,
                                      const std::string& source, int depth);
  // Of a file or directory as this process sees it.
  absl::StatusOr<std::string> OnPath(const std::string& path, int depth);
  absl::StatusOr<std::string> OnDevice(const std::string& directory, int depth);
  absl::StatusOr<std::string> OnOverlay(const UsedFile& file);
  absl::StatusOr<bool> IsOfUpperLayer(const UsedFile& file,
                                      const std::string& upper);
  // Nothing if nothing is there.
  absl::StatusOr<std::optional<struct statx>> Stat(const std::string& path);

  const ProcFs& proc_;
  const TmpfilesRules& rules_;
  const absl::Duration timeout_;
  const std::string sys_;
  // Of this process; read when one is asked for.
  std::optional<std::vector<MountInfo>> mounts_;
  // By device and upper layer.
  std::map<std::pair<dev_t, std::string>, std::string> known_;
};

// The value of an option of a mounted overlay, with its escapes undone; nothing
// if it has none.
std::optional<std::string> OverlayOption(absl::string_view options,
                                         absl::string_view name);

}  // namespace daxsnap

#endif  // DAXSNAP_HOST_TASK_VOLATILE_PLACE_H_
