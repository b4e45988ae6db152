// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_TESTS_UNIT_SNAPD_TEMP_POOL_H_
#define DAXSNAP_TESTS_UNIT_SNAPD_TEMP_POOL_H_

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "snapd/store/catalog.h"
#include "snapd/store/pool.h"
#include "tests/unit/base/testing.h"

namespace daxsnap {

// A pool on a directory whose commits the test watches and makes fail.
class TestPool : public Pool {
 public:
  static std::unique_ptr<TestPool> Open(const std::string& path);

  // Called in place of the commit with its number, from 1 on.
  std::function<absl::Status(int number)> on_commit;

  // Who promises that its memory keeps what is stored.
  Persistence memory = Persistence::kUnknown;
  // Called in place of the kernel with the path of the file.
  std::function<absl::StatusOr<pool::RangeCheck>(
      const std::string& path, uint64_t offset, uint64_t length)>
      on_check_range;
  std::function<absl::Status(const Cancellation&)> on_make_checksums;
  // Whether it can be changed.
  absl::Status writable;

  absl::Status Commit() override;
  int commits() const { return commits_; }
  Persistence persistence() const override { return memory; }
  absl::Status CheckWritable() const override { return writable; }
  absl::StatusOr<pool::RangeCheck> CheckRange(int file, uint64_t offset,
                                              uint64_t length) const override;
  absl::Status MakeChecksums(const Cancellation& cancellation) const override;

  std::vector<std::string> Snapshots() const;
  std::vector<std::string> Staging() const;

 private:
  using Pool::Pool;

  int commits_ = 0;
};

// source: criu/include/magic.h
inline constexpr uint32_t kCommonMagic = 0x54564319;

// An image of CRIU's, of serialized entries.
void WriteRawImage(int directory, const std::string& name, uint32_t first_magic,
                   const std::vector<std::string>& entries);

template <typename Entry>
void WriteImage(int directory, const std::string& name, uint32_t first_magic,
                const std::vector<Entry>& entries) {
  std::vector<std::string> serialized;
  for (const Entry& entry : entries) {
    serialized.push_back(entry.SerializeAsString());
  }
  WriteRawImage(directory, name, first_magic, serialized);
}

// Writes the images that snapd reads: a tree of `pid` alone that maps `exe` and
// has `files` open.
void WriteImages(int images, int pid, const std::string& exe,
                 const std::vector<std::string>& files = {});

// Writes stats-dump.
void WriteStats(int work, int freezing_us, int frozen_us, int pages,
                int shared_memory_pages = 0);

// Writes daxsnap-stats.img.
void WritePageCounts(int images, int by_reference, int shared, int copied,
                     int hole);

// Publishes a small snapshot and ends its operation.
void AddSnapshot(Catalog* catalog, const std::string& name, unsigned owner);

}  // namespace daxsnap

#endif  // DAXSNAP_TESTS_UNIT_SNAPD_TEMP_POOL_H_
