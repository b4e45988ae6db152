// SPDX-License-Identifier: Apache-2.0
#include "snapd/engine/criu_images.h"

#include <fcntl.h>
#include <netinet/in.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <map>
#include <set>
#include <utility>

#include "absl/status/status.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/string_view.h"
#include "base/errors.h"
#include "base/files.h"
#include "daxsnap-stats.pb.h"
#include "daxsnap/internal/criu.pb.h"
#include "snapd/engine/image_entries.h"

namespace daxsnap {
namespace {

namespace pb = ::daxsnap::internal::criu;

// source: criu/include/magic.h
constexpr uint32_t kCommonMagic = 0x54564319;
constexpr uint32_t kServiceMagic = 0x55105940;
// source: criu/include/image.h
constexpr uint32_t kVmaFilePrivate = 1u << 6;
constexpr uint32_t kVmaFileShared = 1u << 7;
// source: include/net/tcp_states.h
constexpr uint32_t kTcpEstablished = 1;
constexpr uint32_t kTcpListen = 10;

constexpr size_t kMaxImage = size_t{256} << 20;

// Of the plugin.
constexpr char kPageCountsFile[] = "daxsnap-stats.img";

// Takes a little-endian number off the front.
bool TakeU32(absl::string_view* data, uint32_t* value) {
  if (data->size() < sizeof(*value)) return false;
  std::memcpy(value, data->data(), sizeof(*value));
  data->remove_prefix(sizeof(*value));
  return true;
}

absl::Status ReadTasks(int images, ImageSet* set) {
  auto entries = ReadEntries<pb::PstreeEntry>(images, "pstree.img");
  if (!entries.ok()) return entries.status();
  for (const pb::PstreeEntry& entry : *entries) {
    ImageTask task;
    task.pid = static_cast<pid_t>(entry.pid());
    task.parent_pid = static_cast<pid_t>(entry.ppid());
    for (const uint32_t thread : entry.threads()) {
      task.thread_ids.push_back(static_cast<pid_t>(thread));
    }
    set->tasks.push_back(std::move(task));
  }
  return set->tasks.empty() ? DamagedImage("pstree.img") : absl::OkStatus();
}

// IDs of the files that any task maps. Zombies have no mm image.
absl::StatusOr<std::set<uint64_t>> ReadMappedIds(
    int images, const std::vector<ImageTask>& tasks) {
  std::set<uint64_t> ids;
  for (const ImageTask& task : tasks) {
    auto entries =
        ReadEntriesIfAny<pb::Mm>(images, absl::StrCat("mm-", task.pid, ".img"));
    if (!entries.ok()) return entries.status();
    if (!entries->has_value()) continue;
    for (const pb::Mm& mm : **entries) {
      ids.insert(mm.exe_file_id());
      for (const pb::Vma& vma : mm.vmas()) {
        if ((vma.status() & (kVmaFilePrivate | kVmaFileShared)) != 0) {
          ids.insert(vma.shmid());
        }
      }
    }
  }
  return ids;
}

void CountSocket(const pb::InetSocket& socket, ImageNetwork* network) {
  if (socket.proto() == IPPROTO_UDP) ++network->udp;
  if (socket.proto() != IPPROTO_TCP) return;
  if (socket.state() == kTcpListen) ++network->tcp_listening;
  if (socket.state() == kTcpEstablished) ++network->tcp_established;
}

absl::Status ReadFiles(int images, ImageSet* set) {
  auto mapped = ReadMappedIds(images, set->tasks);
  if (!mapped.ok()) return mapped.status();
  auto entries = ReadEntries<pb::FileEntry>(images, "files.img");
  if (!entries.ok()) return entries.status();
  std::map<std::string, ImageFile> by_path;
  for (const pb::FileEntry& entry : *entries) {
    if (entry.has_isk()) CountSocket(entry.isk(), &set->network);
    if (entry.has_usk()) ++set->network.unix_sockets;
    if (!entry.has_reg()) continue;
    const pb::RegularFile& reg = entry.reg();
    ImageFile& file = by_path[reg.name()];
    file.path = reg.name();
    file.regular = S_ISREG(reg.mode());
    if (file.regular) file.size = std::max(file.size, reg.size());
    file.size_checked = file.size_checked || reg.has_size();
    file.mapped = file.mapped || mapped->count(entry.id()) != 0;
  }
  for (auto& [path, file] : by_path) set->files.push_back(std::move(file));
  return absl::OkStatus();
}

}  // namespace

absl::StatusOr<std::map<std::string, uint64_t>> ListImages(int images) {
  auto entries = ListDirectory(images);
  if (!entries.ok()) return entries.status();
  std::map<std::string, uint64_t> sizes;
  for (const std::string& entry : *entries) {
    struct stat info;
    if (entry == kPageCountsFile) continue;
    if (fstatat(images, entry.c_str(), &info, AT_SYMLINK_NOFOLLOW) != 0) {
      return ErrnoError(errno, absl::StrCat("cannot stat ", entry));
    }
    if (S_ISREG(info.st_mode)) {
      sizes[entry] = static_cast<uint64_t>(info.st_size);
    }
  }
  return sizes;
}

// An image: one or two magic numbers, then entries {size, message}.
absl::StatusOr<std::vector<std::string>> ReadRawEntries(
    int directory, const std::string& name) {
  auto content = ReadFileAt(directory, name, kMaxImage);
  if (!content.ok()) {
    if (!absl::IsNotFound(content.status())) return content.status();
    return absl::DataLossError(absl::StrCat("image ", name, " is missing"));
  }
  absl::string_view data = *content;
  uint32_t magic = 0;
  if (!TakeU32(&data, &magic)) return DamagedImage(name);
  if ((magic == kCommonMagic || magic == kServiceMagic) &&
      !TakeU32(&data, &magic)) {
    return DamagedImage(name);
  }
  std::vector<std::string> entries;
  while (!data.empty()) {
    uint32_t size = 0;
    if (!TakeU32(&data, &size) || size > data.size()) return DamagedImage(name);
    entries.emplace_back(data.substr(0, size));
    data.remove_prefix(size);
  }
  return entries;
}

absl::Status VisitTasks(
    int images, const std::vector<ImageTask>& tasks,
    const std::function<void(const pb::Mm&)>& mm,
    const std::function<void(const pb::ThreadCore&)>& core) {
  for (const ImageTask& task : tasks) {
    auto mms =
        ReadEntriesIfAny<pb::Mm>(images, absl::StrCat("mm-", task.pid, ".img"));
    if (!mms.ok()) return mms.status();
    if (!mms->has_value()) continue;
    for (const pb::Mm& entry : **mms) mm(entry);
    for (const pid_t thread : task.thread_ids) {
      auto cores =
          ReadEntries<pb::Core>(images, absl::StrCat("core-", thread, ".img"));
      if (!cores.ok()) return cores.status();
      for (const pb::Core& entry : *cores) core(entry.thread_core());
    }
  }
  return absl::OkStatus();
}

absl::StatusOr<ImageSet> ReadImageSet(int images) {
  ImageSet set;
  if (absl::Status status = ReadTasks(images, &set); !status.ok()) {
    return status;
  }
  if (absl::Status status = ReadFiles(images, &set); !status.ok()) {
    return status;
  }
  return set;
}

absl::StatusOr<std::set<ImagePolicy>> ReadPolicies(int images) {
  ImageSet set;
  if (absl::Status status = ReadTasks(images, &set); !status.ok()) {
    return status;
  }
  std::set<ImagePolicy> policies;
  const auto note = [&policies](const auto& of) {
    if (of.mempolicy_nodes() != 0) {
      policies.insert({of.mempolicy(), of.mempolicy_nodes()});
    }
  };
  if (absl::Status status = VisitTasks(
          images, set.tasks,
          [&note](const pb::Mm& mm) {
            for (const pb::Vma& vma : mm.vmas()) note(vma);
          },
          note);
      !status.ok()) {
    return status;
  }
  return policies;
}

absl::StatusOr<DumpTimes> ReadDumpTimes(int work_directory) {
  auto entries = ReadEntries<pb::Stats>(work_directory, "stats-dump");
  if (!entries.ok()) return entries.status();
  if (entries->size() != 1 || !entries->front().has_dump()) {
    return DamagedImage("stats-dump");
  }
  const pb::DumpStats& dump = entries->front().dump();
  return DumpTimes{
      .freezing_us = dump.freezing_time(),
      .frozen_us = dump.frozen_time(),
      .pages_us = uint64_t{dump.memdump_time()} + dump.memwrite_time(),
      .pages_written = dump.pages_written(),
      .shared_memory_pages_written = dump.shpages_written(),
  };
}

absl::StatusOr<std::optional<PageCounts>> ReadPageCounts(int images) {
  const std::string name = kPageCountsFile;
  auto content = ReadFileAt(images, name, kMaxImage);
  if (absl::IsNotFound(content.status())) return std::nullopt;
  if (!content.ok()) return content.status();
  criu::DumpStats stats;
  if (!stats.ParseFromString(*content)) return DamagedImage(name);
  return PageCounts{
      .by_reference = stats.pages_by_reference(),
      .shared = stats.pages_shared(),
      .copied = stats.pages_copied() + stats.pages_declined(),
      .hole = stats.pages_hole(),
      .capture_us = stats.capture_us(),
  };
}

}  // namespace daxsnap
