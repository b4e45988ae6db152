// SPDX-License-Identifier: Apache-2.0
#include "tests/crash/tree_state.h"

#include <cstring>

namespace daxsnap::crash {
namespace {

constexpr size_t kWords = KMEMFS_PAGE_SIZE / sizeof(uint64_t);
constexpr uint64_t kStep = 0x9e3779b97f4a7c15;

}  // namespace

void FillPage(void* page, Tag tag) {
  uint64_t words[kWords];
  for (size_t i = 0; i < kWords; i++) words[i] = tag + i * kStep;
  std::memcpy(page, words, sizeof(words));
}

std::optional<Tag> ReadPage(const void* page) {
  uint64_t words[kWords];
  std::memcpy(words, page, sizeof(words));
  for (size_t i = 1; i < kWords; i++)
    if (words[i] != words[0] + i * kStep) return std::nullopt;
  return words[0];
}

ReadTree ReadState(const format::Recovery& recovery,
                   const kmemfs_media& media) {
  ReadTree result;
  for (const auto& [ino, inode] : recovery.inodes) {
    FileState& file = result.state[ino];
    file.parent = inode.parent;
    file.mode = inode.mode;
    file.name = inode.name;
    file.size = inode.size;
    file.xattrs = inode.xattrs;
    for (const format::Extent& run : inode.runs) {
      for (uint64_t i = 0; i < run.count; i++) {
        const std::optional<Tag> tag =
            ReadPage(media.page(&media, run.page + i));
        if (!tag) {
          result.torn = "inode " + std::to_string(ino) + ": file page " +
                        std::to_string(run.file_page + i) + " (device page " +
                        std::to_string(run.page + i) + ") is torn";
          return result;
        }
        file.pages[run.file_page + i] = *tag;
      }
    }
  }
  for (const auto& [page, sum] : recovery.sums) {
    if (kmemfs_page_sum(media.page(&media, page)) != sum) {
      result.torn =
          "device page " + std::to_string(page) + " has another checksum";
      return result;
    }
  }
  return result;
}

std::string Difference(const TreeState& expected, const TreeState& found) {
  for (const auto& [ino, file] : expected) {
    const std::string who = "inode " + std::to_string(ino) + ": ";
    const auto other = found.find(ino);
    if (other == found.end()) return who + "missing";
    const FileState& is = other->second;
    if (is.parent != file.parent || is.name != file.name)
      return who + "is " + std::to_string(is.parent) + "/" + is.name +
             ", should be " + std::to_string(file.parent) + "/" + file.name;
    if (is.mode != file.mode || is.size != file.size)
      return who + "mode or size";
    if (is.xattrs != file.xattrs) return who + "attributes";
    for (const auto& [at, tag] : file.pages) {
      const auto page = is.pages.find(at);
      if (page == is.pages.end())
        return who + "page " + std::to_string(at) + " missing";
      if (page->second != tag)
        return who + "page " + std::to_string(at) + " has other contents";
    }
    if (is.pages.size() != file.pages.size()) return who + "more pages";
  }
  if (found.size() != expected.size()) return "more inodes";
  return "";
}

}  // namespace daxsnap::crash
