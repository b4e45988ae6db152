// SPDX-License-Identifier: Apache-2.0
#include "host/task/build_id.h"

#include <elf.h>
#include <unistd.h>

#include <cerrno>
#include <cstdint>
#include <cstring>
#include <utility>

#include "absl/strings/escaping.h"
#include "absl/strings/string_view.h"
#include "base/errors.h"
#include "base/files.h"
#include "host/task/ask_paths.h"

namespace daxsnap {
namespace {

// What is read at once is on the stack of a thread.
constexpr size_t kMaxProgramHeaders = 128;
constexpr size_t kMaxNotes = size_t{64} << 10;
constexpr size_t kMaxBuildId = 64;

// What the child says of a file.
struct Report {
  // Of reaching it, and of reading it; 0, or an errno. EINVAL of the first: it
  // is no regular file.
  int open_error;
  int read_error;
  struct stat info;
  size_t size;
  char id[kMaxBuildId];
};

// From here to Ask() only system calls and the stack are used.

// Whether all of it was read; if the file ends before, errno is 0.
bool ReadAt(int fd, uint64_t offset, void* to, size_t size) {
  const ssize_t got = pread(fd, to, size, static_cast<off_t>(offset));
  if (got == static_cast<ssize_t>(size)) return true;
  // An offset that no file can have.
  if (got >= 0 || errno == EINVAL || errno == EOVERFLOW) errno = 0;
  return false;
}

uint64_t RoundUp4(uint64_t size) { return (size + 3) & ~uint64_t{3}; }

// The build-id among the notes of one segment.
absl::string_view FindInNotes(absl::string_view notes) {
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
      return data;
    }
    notes.remove_prefix(name_size + data_size);
  }
  return {};
}

// The number of bytes of the build-id, which go to `id`; 0 if there is none, or
// if errno says why it cannot be read.
size_t FindBuildId(int fd, char* id) {
  Elf64_Ehdr elf;
  errno = 0;
  if (!ReadAt(fd, 0, &elf, sizeof(elf)) ||
      std::memcmp(elf.e_ident, ELFMAG, SELFMAG) != 0 ||
      elf.e_ident[EI_CLASS] != ELFCLASS64 ||
      elf.e_phentsize != sizeof(Elf64_Phdr) ||
      elf.e_phnum > kMaxProgramHeaders) {
    return 0;
  }
  Elf64_Phdr segments[kMaxProgramHeaders];
  if (!ReadAt(fd, elf.e_phoff, segments, elf.e_phnum * sizeof(Elf64_Phdr))) {
    return 0;
  }
  char notes[kMaxNotes];
  for (size_t i = 0; i < elf.e_phnum; ++i) {
    const Elf64_Phdr& segment = segments[i];
    if (segment.p_type != PT_NOTE || segment.p_filesz > kMaxNotes) continue;
    if (!ReadAt(fd, segment.p_offset, notes, segment.p_filesz)) {
      if (errno != 0) return 0;
      continue;
    }
    const absl::string_view found = FindInNotes({notes, segment.p_filesz});
    if (found.empty()) continue;
    std::memcpy(id, found.data(), found.size());
    return found.size();
  }
  return 0;
}

void Ask(const char* path, Report* file) {
  const int fd = OpenRegularFile(path, &file->info);
  if (fd < 0) {
    file->open_error = errno;
    return;
  }
  file->size = FindBuildId(fd, file->id);
  if (file->size == 0) file->read_error = errno;
  close(fd);
}

absl::StatusOr<std::string> ToText(const char* id, size_t size, int error) {
  if (size == 0 && error != 0) {
    return ErrnoError(error, "cannot read the build-id");
  }
  return absl::BytesToHexString({id, size});
}

absl::StatusOr<MappedFile> ToMappedFile(const Report& report,
                                        const std::string& path) {
  const int fault = FileFault("open", path);
  if (fault != 0 || report.open_error != 0) {
    return OpenRegularError(fault != 0 ? fault : report.open_error, path);
  }
  auto id = ToText(report.id, report.size, report.read_error);
  if (!id.ok()) return id.status();
  return MappedFile{.info = report.info, .build_id = *std::move(id)};
}

}  // namespace

absl::StatusOr<std::string> ReadBuildId(int fd) {
  char id[kMaxBuildId];
  const size_t size = FindBuildId(fd, id);
  return ToText(id, size, errno);
}

absl::StatusOr<std::vector<absl::StatusOr<MappedFile>>> LookAtMappedFiles(
    const std::vector<std::string>& paths, absl::Duration timeout) {
  std::vector<absl::StatusOr<MappedFile>> files;
  files.reserve(paths.size());
  absl::Status status = AskPaths<Report, Ask>(
      paths, timeout, [&](size_t i) { return NoAnswer(paths[i], timeout); },
      [&](size_t i, const Report& report) {
        files.push_back(ToMappedFile(report, paths[i]));
        return absl::OkStatus();
      });
  if (!status.ok()) return status;
  return files;
}

}  // namespace daxsnap
