// SPDX-License-Identifier: Apache-2.0
#include "host/task/build_id.h"

#include <elf.h>
#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>
#include <string>

#include "base/errors.h"
#include "base/unique_fd.h"

namespace daxsnap {
namespace {

UniqueFd FileWith(const std::string& content) {
  UniqueFd fd(memfd_create("elf", MFD_CLOEXEC));
  EXPECT_EQ(write(fd.get(), content.data(), content.size()),
            static_cast<ssize_t>(content.size()));
  return fd;
}

// An ELF file of one PT_NOTE segment with a note of `size` claimed bytes.
std::string ElfWithNote(uint32_t claimed_size) {
  Elf64_Ehdr elf;
  std::memset(&elf, 0, sizeof(elf));
  std::memcpy(elf.e_ident, ELFMAG, SELFMAG);
  elf.e_ident[EI_CLASS] = ELFCLASS64;
  elf.e_phoff = sizeof(elf);
  elf.e_phentsize = sizeof(Elf64_Phdr);
  elf.e_phnum = 1;
  Elf64_Phdr segment;
  std::memset(&segment, 0, sizeof(segment));
  segment.p_type = PT_NOTE;
  segment.p_offset = sizeof(elf) + sizeof(segment);
  const Elf64_Nhdr note = {
      .n_namesz = 4, .n_descsz = claimed_size, .n_type = NT_GNU_BUILD_ID};
  std::string notes(reinterpret_cast<const char*>(&note), sizeof(note));
  notes += std::string("GNU\0\x01\x02\xfe\xff", 8);
  segment.p_filesz = notes.size();
  return std::string(reinterpret_cast<const char*>(&elf), sizeof(elf)) +
         std::string(reinterpret_cast<const char*>(&segment), sizeof(segment)) +
         notes;
}

TEST(BuildId, IsReadFromItsNote) {
  EXPECT_EQ(*ReadBuildId(FileWith(ElfWithNote(4)).get()), "0102feff");
}

TEST(BuildId, OfThisLibcExists) {
  const UniqueFd fd(open("/lib/x86_64-linux-gnu/libc.so.6", O_RDONLY));
  ASSERT_TRUE(fd.valid());
  EXPECT_EQ(ReadBuildId(fd.get())->size(), 40u);
}

TEST(BuildId, OfWhatIsNoElfFileIsEmpty) {
  EXPECT_EQ(*ReadBuildId(FileWith("").get()), "");
  EXPECT_EQ(*ReadBuildId(FileWith(std::string(200, 'x')).get()), "");
}

TEST(BuildId, OfWhatCannotBeReadIsAnError) {
  const UniqueFd unreadable(open("/", O_RDONLY | O_DIRECTORY));
  EXPECT_EQ(ErrnoNameOf(ReadBuildId(unreadable.get()).status()), "EISDIR");
}

TEST(BuildId, LyingSizesAreHarmless) {
  for (const uint32_t size : {8u, 65u, 0x7fffffffu, 0xffffffffu}) {
    EXPECT_EQ(*ReadBuildId(FileWith(ElfWithNote(size)).get()), "") << size;
  }
  const std::string whole = ElfWithNote(4);
  for (size_t length = 0; length < whole.size(); ++length) {
    EXPECT_EQ(*ReadBuildId(FileWith(whole.substr(0, length)).get()), "")
        << length;
  }
}

}  // namespace
}  // namespace daxsnap
