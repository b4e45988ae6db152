// SPDX-License-Identifier: Apache-2.0
#include "snapd/build_id.h"

#include <elf.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <vector>

#include "absl/strings/escaping.h"
#include "absl/strings/string_view.h"
#include "snapd/errors.h"

namespace daxsnap {
namespace {

constexpr size_t kMaxProgramHeaders = 128;
constexpr size_t kMaxNotes = size_t{64} << 10;
constexpr size_t kMaxBuildId = 64;

// False if the file ends before.
absl::StatusOr<bool> ReadAt(int fd, uint64_t offset, void* to, size_t size) {
  const ssize_t got = pread(fd, to, size, static_cast<off_t>(offset));
  if (got >= 0) return got == static_cast<ssize_t>(size);
  // An offset that no file can have.
  if (errno == EINVAL || errno == EOVERFLOW) return false;
  return ErrnoError(errno, "cannot read the build-id");
}

uint64_t RoundUp4(uint64_t size) { return (size + 3) & ~uint64_t{3}; }

// The build-id among the notes of one segment.
std::string FindInNotes(absl::string_view notes) {
  while (notes.size() >= sizeof(Elf64_Nhdr)) {
    Elf64_Nhdr header;
    std::memcpy(&header, notes.data(), sizeof(header));
    notes.remove_prefix(sizeof(header));
    const uint64_t name_size = RoundUp4(header.n_namesz);
    const uint64_t data_size = RoundUp4(header.n_descsz);
    if (name_size > notes.size() || data_size > notes.size() - name_size) {
      return {};
    }
    const absl::string_view name = notes.substr(0, header.n_namesz);
    const absl::string_view data = notes.substr(name_size, header.n_descsz);
    if (header.n_type == NT_GNU_BUILD_ID &&
        name == absl::string_view("GNU", 4) && data.size() <= kMaxBuildId) {
      return absl::BytesToHexString(data);
    }
    notes.remove_prefix(name_size + data_size);
  }
  return {};
}

}  // namespace

absl::StatusOr<std::string> ReadBuildId(int fd) {
  Elf64_Ehdr elf;
  auto read = ReadAt(fd, 0, &elf, sizeof(elf));
  if (!read.ok()) return read.status();
  if (!*read || std::memcmp(elf.e_ident, ELFMAG, SELFMAG) != 0 ||
      elf.e_ident[EI_CLASS] != ELFCLASS64 ||
      elf.e_phentsize != sizeof(Elf64_Phdr) ||
      elf.e_phnum > kMaxProgramHeaders) {
    return std::string();
  }
  std::vector<Elf64_Phdr> segments(elf.e_phnum);
  read = ReadAt(fd, elf.e_phoff, segments.data(),
                segments.size() * sizeof(Elf64_Phdr));
  if (!read.ok()) return read.status();
  if (!*read) return std::string();
  for (const Elf64_Phdr& segment : segments) {
    if (segment.p_type != PT_NOTE || segment.p_filesz > kMaxNotes) continue;
    std::string notes(segment.p_filesz, '\0');
    read = ReadAt(fd, segment.p_offset, notes.data(), notes.size());
    if (!read.ok()) return read.status();
    if (!*read) continue;
    std::string id = FindInNotes(notes);
    if (!id.empty()) return id;
  }
  return std::string();
}

}  // namespace daxsnap
