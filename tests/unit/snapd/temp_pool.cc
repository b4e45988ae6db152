// SPDX-License-Identifier: Apache-2.0
#include "tests/unit/snapd/temp_pool.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>

#include <cstdlib>
#include <utility>

#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/files.h"
#include "base/uuid.h"
#include "daxsnap-stats.pb.h"
#include "daxsnap/internal/criu.pb.h"
#include "daxsnap/internal/operation.pb.h"
#include "daxsnap/v1/manifest.pb.h"

namespace daxsnap {
namespace {

namespace pb = ::daxsnap::internal::criu;

std::string U32(uint32_t value) {
  return std::string(reinterpret_cast<const char*>(&value), sizeof(value));
}

constexpr uint32_t kServiceMagic = 0x55105940;

}  // namespace

void WriteRawImage(int directory, const std::string& name, uint32_t first_magic,
                   const std::vector<std::string>& entries) {
  std::string bytes = U32(first_magic) + U32(0x12345678);
  for (const std::string& body : entries) {
    bytes += U32(static_cast<uint32_t>(body.size())) + body;
  }
  ASSERT_TRUE(ReplaceFileAt(directory, name, bytes).ok());
}

std::unique_ptr<TestPool> TestPool::Open(const std::string& path) {
  auto handles = OpenHandles(path);
  EXPECT_TRUE(handles.ok()) << handles.status();
  return std::unique_ptr<TestPool>(new TestPool(*std::move(handles)));
}

absl::Status TestPool::Commit() {
  ++commits_;
  if (const int error = FileFault("commit", path()); error != 0) {
    return ErrnoError(error, "cannot commit");
  }
  return on_commit ? on_commit(commits_) : absl::OkStatus();
}

absl::StatusOr<pool::RangeCheck> TestPool::CheckRange(int file, uint64_t offset,
                                                      uint64_t length) const {
  if (!on_check_range) return Pool::CheckRange(file, offset, length);
  return on_check_range(ReadLink(absl::StrCat("/proc/self/fd/", file)).value(),
                        offset, length);
}

absl::Status TestPool::MakeChecksums(const Cancellation& cancellation) const {
  return on_make_checksums ? on_make_checksums(cancellation)
                           : Pool::MakeChecksums(cancellation);
}

std::vector<std::string> TestPool::Snapshots() const {
  return ListDirectory(snapshots()).value();
}

std::vector<std::string> TestPool::Staging() const {
  return ListDirectory(staging()).value();
}

void WriteImages(int images, int pid, const std::string& exe,
                 const std::vector<std::string>& files) {
  struct stat info;
  ASSERT_EQ(stat(exe.c_str(), &info), 0);
  pb::PstreeEntry task;
  task.set_pid(static_cast<uint32_t>(pid));
  task.add_threads(static_cast<uint32_t>(pid));
  pb::FileEntry file;
  file.set_id(7);
  file.mutable_reg()->set_id(7);
  file.mutable_reg()->set_name(exe);
  file.mutable_reg()->set_size(static_cast<uint64_t>(info.st_size));
  file.mutable_reg()->set_mode(info.st_mode);
  std::vector<pb::FileEntry> entries = {file};
  for (const std::string& path : files) {
    ASSERT_EQ(stat(path.c_str(), &info), 0);
    pb::FileEntry& entry = entries.emplace_back();
    entry.set_id(8);
    entry.mutable_reg()->set_name(path);
    entry.mutable_reg()->set_size(static_cast<uint64_t>(info.st_size));
    entry.mutable_reg()->set_mode(info.st_mode);
  }
  pb::Mm mm;
  mm.set_exe_file_id(7);
  WriteImage<pb::PstreeEntry>(images, "pstree.img", kCommonMagic, {task});
  WriteImage<pb::FileEntry>(images, "files.img", kCommonMagic, entries);
  WriteImage<pb::Mm>(images, absl::StrCat("mm-", pid, ".img"), kCommonMagic,
                     {mm});
  WriteImage<pb::Core>(images, absl::StrCat("core-", pid, ".img"), kCommonMagic,
                       {pb::Core()});
  WriteImage<pb::Mm>(images, "inventory.img", kCommonMagic, {});
}

void WriteStats(int work, int freezing_us, int frozen_us, int pages,
                int shared_memory_pages) {
  pb::Stats stats;
  stats.mutable_dump()->set_freezing_time(static_cast<uint32_t>(freezing_us));
  stats.mutable_dump()->set_frozen_time(static_cast<uint32_t>(frozen_us));
  stats.mutable_dump()->set_memdump_time(30);
  stats.mutable_dump()->set_memwrite_time(12);
  stats.mutable_dump()->set_pages_written(static_cast<uint64_t>(pages));
  stats.mutable_dump()->set_shpages_written(
      static_cast<uint64_t>(shared_memory_pages));
  WriteImage<pb::Stats>(work, "stats-dump", kServiceMagic, {stats});
}

void WritePageCounts(int images, int by_reference, int shared, int copied,
                     int hole) {
  criu::DumpStats stats;
  stats.set_pages_by_reference(static_cast<uint64_t>(by_reference));
  stats.set_pages_shared(static_cast<uint64_t>(shared));
  stats.set_pages_copied(static_cast<uint64_t>(copied));
  stats.set_pages_hole(static_cast<uint64_t>(hole));
  ASSERT_TRUE(
      ReplaceFileAt(images, "daxsnap-stats.img", stats.SerializeAsString())
          .ok());
}

void AddSnapshot(Catalog* catalog, const std::string& name, unsigned owner) {
  internal::Operation operation;
  operation.set_uid(NewUuid());
  operation.set_name(name);
  auto staged = catalog->Begin(operation);
  ASSERT_TRUE(staged.ok()) << staged.status();
  v1::Manifest manifest;
  manifest.set_format_version(1);
  manifest.mutable_snapshot()->set_uid(operation.uid());
  manifest.mutable_snapshot()->set_name(name);
  manifest.mutable_snapshot()->set_owner_uid(owner);
  ASSERT_TRUE(catalog->WriteManifest(staged->directory.get(), manifest).ok());
  ASSERT_TRUE(catalog->Publish(&*staged).ok());
  ASSERT_TRUE(catalog->Finish(*std::move(staged)).ok());
}

}  // namespace daxsnap
