// SPDX-License-Identifier: Apache-2.0
//
// No content of a device may crash or hang the reader, and what it takes keeps
// the rules.
//
// An input is a list of edits of a committed image. Without the first bit of
// the input, crcs are made right after the edits: a fuzzer cannot guess them,
// but a malicious device can compute them.
#include <cstdint>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "tests/fuzz/input.h"
#include "tests/unit/format/image.h"
#include "tests/unit/format/recovery.h"

namespace daxsnap::format {
namespace {

using fuzz::Input;
using fuzz::Require;

constexpr uint64_t kPages = 320;
constexpr size_t kMaxEdits = 64;

struct Base {
  Base() : image(kPages) {
    const uint64_t data = image.Allocate(290);
    Inode large = File(9, "large", {}, 3);
    for (uint64_t i = 0; i < 260; i++)
      large.runs.push_back({.file_page = 2 * i, .page = data + i});
    large.size = uint64_t{520} * KMEMFS_PAGE_SIZE;
    image.Commit({RootDirectory(), File(2, "a", {{0, 5, data}}),
                  Directory(3, "d"), Directory(4, "e", 3),
                  Symlink(5, "link", data + 280), large,
                  File(10, "b", {{0, 2, data}}, 4), File(30, "c", {})});
    pages = Recover(image.media()).meta;
    pages.insert(pages.end(), {0, 1, 2});
  }

  Image image;
  std::vector<uint64_t> pages;  // that mean something
};

void Edit(Input* input, const Base& base, Image* image,
          std::set<uint64_t>* edited) {
  const uint64_t page = base.pages[input->Take(1) % base.pages.size()];
  fuzz::EditPage(input, KMEMFS_PAGE_SIZE, image->As<uint8_t>(page));
  edited->insert(page);
}

void CheckReader(const Image& image) {
  kmem_persist_why why = {};
  if (!kmem_persist_header_verify(image.header(),
                                  image.nr_pages() * KMEMFS_PAGE_SIZE, &why))
    Require(kmem_persist_header_present(image.header()), "header");
  const Recovery first = Recover(image.media());
  Require(first.ok() || !first.why.empty(), "refused without a reason");
  if (!first.ok()) return;
  const std::string broken = BrokenRule(first, image.media());
  Require(broken.empty(), broken);
  const Recovery second = Recover(image.media());
  Require(second.slot == first.slot && second.inodes == first.inodes,
          "recovered twice");
}

void CheckRuns(const Image& image, const kmemfs_inode_record& record) {
  kmemfs_root_info root = {};
  root.generation = 2;
  const kmemfs_visitor nothing = {};
  kmem_persist_why why = {};
  (void)kmemfs_walk_runs(&image.media(), &root, &record, &nothing, nullptr,
                         &why);
}

}  // namespace

void FuzzOne(const uint8_t* data, size_t size) {
  static const Base base;
  static Image image(base.image);
  Input input(data, size);
  std::set<uint64_t> edited;
  const uint64_t flags = input.Take(1);

  for (size_t i = 0; i < kMaxEdits && !input.empty(); i++)
    Edit(&input, base, &image, &edited);
  if (!(flags & 1)) {
    for (const uint64_t page : edited)
      if (page) image.Seal(page);
  }
  CheckReader(image);
  for (const uint64_t page : edited) {
    kmemfs_inode_record record;
    std::memcpy(&record, image.As<kmemfs_inodes>(page)->record, sizeof(record));
    CheckRuns(image, record);
    std::memcpy(image.Page(page), base.image.Page(page), KMEMFS_PAGE_SIZE);
  }
}

}  // namespace daxsnap::format

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  daxsnap::format::FuzzOne(data, size);
  return 0;
}
