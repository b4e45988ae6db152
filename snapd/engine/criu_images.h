// SPDX-License-Identifier: Apache-2.0
//
// Reads what snapd needs to know out of CRIU's image files.
#ifndef DAXSNAP_SNAPD_ENGINE_CRIU_IMAGES_H_
#define DAXSNAP_SNAPD_ENGINE_CRIU_IMAGES_H_

#include <sys/types.h>

#include <compare>
#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "absl/status/statusor.h"

namespace daxsnap {

struct ImageTask {
  pid_t pid = 0;
  pid_t parent_pid = 0;
  std::vector<pid_t> thread_ids;
};

struct ImageFile {
  std::string path;
  // Bytes; 0 for what is not a regular file.
  uint64_t size = 0;
  bool regular = false;
  // Whether a task maps it, so that its content matters.
  bool mapped = false;
  // Whether CRIU wants it to have that size at restore: all but those that are
  // open O_WRONLY and O_APPEND only.
  bool size_checked = false;
};

// Sockets, counted.
struct ImageNetwork {
  uint32_t tcp_listening = 0;
  uint32_t tcp_established = 0;
  uint32_t udp = 0;
  uint32_t unix_sockets = 0;
};

struct ImageSet {
  std::vector<ImageTask> tasks;  // root first
  std::vector<ImageFile> files;  // by path, each once
  ImageNetwork network;
};

// Regular files among the images in a directory, but for statistics: their
// sizes in bytes, by name.
absl::StatusOr<std::map<std::string, uint64_t>> ListImages(int images);

// Reads the images in a directory. DATA_LOSS if one is missing or does not
// parse.
absl::StatusOr<ImageSet> ReadImageSet(int images);

// A memory policy of a thread or of a mapping.
struct ImagePolicy {
  // MPOL_* and flags, as of set_mempolicy(2).
  uint32_t mode = 0;
  // A mask; CRIU has no nodes above 63.
  uint64_t nodes = 0;

  friend auto operator<=>(const ImagePolicy&, const ImagePolicy&) = default;
};

// The memory policies of the tasks that name nodes, each once. DATA_LOSS if an
// image is missing or does not parse.
absl::StatusOr<std::set<ImagePolicy>> ReadPolicies(int images);

// Times of a dump in µs, from stats-dump in CRIU's work directory.
struct DumpTimes {
  uint64_t freezing_us = 0;
  uint64_t frozen_us = 0;
  uint64_t pages_us = 0;
  // Of private memory, whoever has written them.
  uint64_t pages_written = 0;
  uint64_t shared_memory_pages_written = 0;
};
absl::StatusOr<DumpTimes> ReadDumpTimes(int work_directory);

// Pages by the way they were stored, from daxsnap-stats.img. Pages that went
// through CRIU's own copy count as copied. nullopt if there is no such file,
// that is, if the plugin was not loaded.
struct PageCounts {
  uint64_t by_reference = 0;
  uint64_t shared = 0;
  uint64_t copied = 0;
  uint64_t hole = 0;
  uint64_t capture_us = 0;
};
absl::StatusOr<std::optional<PageCounts>> ReadPageCounts(int images);

}  // namespace daxsnap

#endif  // DAXSNAP_SNAPD_ENGINE_CRIU_IMAGES_H_
