// SPDX-License-Identifier: Apache-2.0
//
// No content of a device may crash or hang the reader, and what it takes keeps
// the rules.
//
// An input is a list of edits of a committed image, of version 2 with the
// second bit of the input, else of version 1. Without the first bit, crcs are
// made right after the edits: a fuzzer cannot guess them, but a malicious
// device can compute them.
#include <cerrno>
#include <cstdint>
#include <cstring>
#include <set>
#include <string>
#include <vector>

#include "tests/fuzz/input.h"
#include "tests/unit/format/image.h"
#include "tests/unit/format/recovery.h"
#include "tests/unit/format/sample.h"

namespace daxsnap::format {
namespace {

using fuzz::Input;
using fuzz::Require;

constexpr size_t kMaxEdits = 64;

struct Base {
  explicit Base(uint32_t version) : image(kSmallSamplePages, version) {
    CommitSample(&image);
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
  const Recovery without = RecoverWithoutSums(image.media());
  Require(first.ok() || !first.why.empty(), "refused without a reason");
  Require(without.ok() ? first.ok() != without.sums_lost : !first.ok(),
          "the table of checksums decides");
  if (!first.ok()) return;
  const std::string broken = BrokenRule(first, image.media());
  Require(broken.empty(), broken);
  const Recovery second = Recover(image.media());
  Require(second.slot == first.slot && second.inodes == first.inodes,
          "recovered twice");
}

// A walk that does not end at damage says where it is, and is at an end some
// time.
void CheckDamage(const Image& image) {
  kmemfs_root_info root = {};
  unsigned int slot = 0;
  kmem_persist_why why = {};
  if (kmemfs_root_pick(&image.media(), &slot, &root, &why)) return;
  kmemfs_visitor visitor = {};
  visitor.damage = [](void*, __u64, __u64, __u64, __u64, const char* reason) {
    Require(*reason != 0, "damage without a reason");
    return 0;
  };
  const int error = kmemfs_walk(&image.media(), &root, &visitor, nullptr, &why);
  Require(error == 0 || error == -EUCLEAN, "damage ends the walk");
}

void CheckRuns(const Image& image, const kmemfs_inode_record& record) {
  kmemfs_root_info root = {};
  root.version = image.version();
  root.generation = 2;
  const kmemfs_visitor nothing = {};
  kmem_persist_why why = {};
  (void)kmemfs_walk_runs(&image.media(), &root, &record, &nothing, nullptr,
                         &why);
}

}  // namespace

void FuzzOne(const uint8_t* data, size_t size) {
  static const Base bases[] = {Base(1), Base(2)};
  static Image images[] = {Image(bases[0].image), Image(bases[1].image)};
  Input input(data, size);
  std::set<uint64_t> edited;
  const uint64_t flags = input.Take(1);
  const Base& base = bases[flags >> 1 & 1];
  Image& image = images[flags >> 1 & 1];

  for (size_t i = 0; i < kMaxEdits && !input.empty(); i++)
    Edit(&input, base, &image, &edited);
  if (!(flags & 1)) {
    for (const uint64_t page : edited)
      if (page) image.Seal(page);
  }
  CheckReader(image);
  CheckDamage(image);
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
