// SPDX-License-Identifier: Apache-2.0
#include <filesystem>
#include <fstream>
#include <string>
#include <system_error>

#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "host/pool/pool.h"

namespace daxsnap::pool {
namespace {

constexpr std::uint64_t kSector = 512;  // unit of "size", whatever the disk has

// The first word of a sysfs file.
absl::StatusOr<std::string> ReadWord(const std::filesystem::path& path) {
  std::ifstream file(path);
  std::string word;
  if (file >> word) return word;
  return absl::InternalError(absl::StrCat("cannot read ", path.string()));
}

absl::Status ReadNumber(const std::filesystem::path& path,
                        std::uint64_t* number) {
  absl::StatusOr<std::string> word = ReadWord(path);
  if (!word.ok()) return word.status();
  if (absl::SimpleAtoi(*word, number)) return absl::OkStatus();
  return absl::DataLossError(
      absl::StrCat(path.string(), " holds no number: ", *word));
}

}  // namespace

absl::StatusOr<std::optional<BlockDevice>> FindBlockDevice(
    const Device& device, const std::string& sysfs) {
  const std::string name = absl::StrCat("kmem", device.target_node);
  const std::filesystem::path disk =
      std::filesystem::path(sysfs) / "block" / name;
  std::error_code error;
  const bool exists = std::filesystem::exists(disk / "kmem", error);
  if (error) {
    return absl::ErrnoToStatus(error.value(),
                               absl::StrCat("cannot look at ", disk.string()));
  }
  if (!exists) return std::nullopt;
  absl::StatusOr<std::string> owner = ReadWord(disk / "kmem/device");
  if (!owner.ok()) return owner.status();
  if (*owner != device.name) return std::nullopt;

  BlockDevice block;
  block.path = absl::StrCat("/dev/", name);
  struct {
    const char* file;
    std::uint64_t* number;
  } const numbers[] = {{"size", &block.capacity},
                       {"kmem/mapped", &block.mapped},
                       {"kmem/free", &block.free},
                       {"kmem/discarded", &block.discarded}};
  for (const auto& [file, number] : numbers) {
    absl::Status status = ReadNumber(disk / file, number);
    if (!status.ok()) return status;
  }
  block.capacity *= kSector;
  return block;
}

}  // namespace daxsnap::pool
