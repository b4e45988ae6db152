// SPDX-License-Identifier: Apache-2.0
//
// The commit and the mount of ModelFs.
#include <endian.h>
#include <sys/stat.h>

#include <algorithm>
#include <cstring>
#include <utility>

#include "tests/crash/model_fs.h"
#include "tests/unit/format/image.h"

namespace daxsnap::crash {
namespace {

Fault WithoutStep(kmem_persist_step step) {
  switch (step) {
    case KMEM_STEP_FS_EXTENTS:
      return Fault::kNoExtentsFlush;
    case KMEM_STEP_FS_SEGMENT:
      return Fault::kNoSegmentFlush;
    case KMEM_STEP_FS_NODE:
      return Fault::kNoNodeFlush;
    case KMEM_STEP_FS_XATTRS:
      return Fault::kNoXattrsFlush;
    case KMEM_STEP_FS_SUMS:
      return Fault::kNoSumsFlush;
    case KMEM_STEP_FS_INODES:
      return Fault::kNoInodesFlush;
    case KMEM_STEP_FS_INDEX:
      return Fault::kNoIndexFlush;
    case KMEM_STEP_FS_BEFORE_ROOT:
      return Fault::kNoFenceBeforeRoot;
    case KMEM_STEP_FS_ROOT:
      return Fault::kNoRootFlush;
    case KMEM_STEP_FS_AFTER_ROOT:
      return Fault::kNoFenceAfterRoot;
    case KMEM_STEP_FS_RETIRE:
      return Fault::kNoRetireFlush;
    case KMEM_STEP_FS_AFTER_RETIRE:
      return Fault::kNoFenceAfterRetire;
    default:
      return Fault::kNoDataFlush;
  }
}

}  // namespace

// The format code's way to the device, with the faults that are in it.
struct ModelFs::Sink : kmemfs_sink {
  Sink(ModelFs* fs, uint64_t to_generation) : kmemfs_sink{}, fs(fs) {
    alloc = [](kmemfs_sink* s, __u64* page) {
      return static_cast<Sink*>(s)->Alloc(page);
    };
    flush = [](kmemfs_sink* s, kmem_persist_step step, const void* addr,
               size_t len) { static_cast<Sink*>(s)->Flush(step, addr, len); };
    fence = [](kmemfs_sink* s, kmem_persist_step step) {
      static_cast<Sink*>(s)->Fence(step);
    };
    std::memcpy(uuid, kUuid, sizeof(uuid));
    generation = to_generation;
  }

  void* Alloc(__u64* page) {
    *page = fs->AllocatePage();
    if (!*page) return nullptr;
    taken.push_back(*page);
    return fs->device_->Page(*page);
  }

  void Flush(kmem_persist_step step, const void* addr, size_t len) {
    if (fs->fault_ == WithoutStep(step)) return;
    if (fs->fault_ == Fault::kFlushBeforeLastStore) {
      // As if the crc had been stored after the flush.
      auto* head = static_cast<kmemfs_page_head*>(
          fs->device_->Page(fs->device_->PageOf(addr)));
      const __le32 crc = head->crc;
      head->crc = 0;
      fs->Flush(addr, len);
      head->crc = crc;
      return;
    }
    fs->Flush(addr, len);
  }

  void Fence(kmem_persist_step step) {
    if (fs->fault_ != WithoutStep(step)) fs->device_->Fence();
  }

  ModelFs* fs;
  std::vector<uint64_t> taken;  // pages that this commit has allocated
};

struct ModelFs::Plan {
  Plan(ModelFs* fs, uint64_t generation) : sink(fs, generation) {}

  Sink sink;
  std::map<uint64_t, Node> nodes;       // with new file trees
  std::map<uint64_t, uint64_t> leaves;  // as they will be
  std::vector<uint64_t> table;
  std::vector<uint64_t> sums;
  std::vector<uint64_t> replaced;  // metadata pages to free afterwards
  kmemfs_inodes* late = nullptr;   // kRootBeforeInodes
  kmemfs_root_info root = {};
};

void ModelFs::Format() {
  std::vector<kmemfs_root> slots(KMEMFS_ROOT_SLOTS);
  kmemfs_mkfs(slots.data(), kUuid, version_, 0);
  for (unsigned int i = 0; i < KMEMFS_ROOT_SLOTS; i++) {
    std::memcpy(device_->Page(1 + i), &slots[i], sizeof(slots[i]));
    device_->Flush(device_->Page(1 + i), KMEMFS_PAGE_SIZE);
  }
  device_->Fence();
  generation_ = 1;
  slot_ = 0;
  for (uint64_t page = device_->nr_pages(); page-- > KMEM_PERSIST_HEAD_PAGES;)
    FreePage(page);
  // The empty tree of a new pool has no record; the first commit writes one.
  now_[KMEMFS_ROOT_INO] = {.parent = KMEMFS_ROOT_INO,
                           .mode = S_IFDIR | 0700,
                           .name = "",
                           .pages = {}};
  Touch(KMEMFS_ROOT_INO);
}

void ModelFs::Mount(const format::Recovery& recovery) {
  const ReadTree tree = ReadState(
      recovery, [this] { return MediaOf(device_->media(), kUuid); }());
  now_ = durable_ = tree.state;
  generation_ = recovery.root.generation;
  root_ = recovery.root;
  slot_ = recovery.slot;
  for (const auto& [ino, inode] : recovery.inodes) {
    Node& node = nodes_[ino];
    for (const format::Extent& run : inode.runs) {
      for (uint64_t i = 0; i < run.count; i++) {
        node.pages[run.file_page + i] = run.page + i;
        owners_[run.page + i]++;
        committed_.insert(run.page + i);
      }
    }
  }
  for (const uint64_t page : recovery.meta) {
    kmemfs_page_head head;
    std::memcpy(&head, device_->Page(page), sizeof(head));
    const uint32_t kind = le32toh(head.kind);
    const uint64_t owner = le64toh(head.owner);
    if (kind == KMEMFS_KIND_INODES) {
      leaves_[le64toh(head.first) / KMEMFS_INODES_PER_PAGE] = page;
      LoadRecords(page, recovery);
    } else if (kind == KMEMFS_KIND_INDEX && owner == KMEMFS_OWNER_INODES) {
      table_.push_back(page);
    } else if (kind == KMEMFS_KIND_SUMS ||
               (kind == KMEMFS_KIND_INDEX && version_ == 2)) {
      sums_.push_back(page);
    }
  }
  if (fault_ != Fault::kNoRetireAtMount) {
    Sink sink(this, generation_);
    kmemfs_retire(&sink, static_cast<kmemfs_root*>(device_->Page(1 + !slot_)));
  }
  for (uint64_t page = device_->nr_pages(); page-- > KMEM_PERSIST_HEAD_PAGES;)
    if (!recovery.meta_bits[page] && !recovery.data_bits[page]) FreePage(page);
  if (now_.empty()) {
    now_[KMEMFS_ROOT_INO] = {.parent = KMEMFS_ROOT_INO,
                             .mode = S_IFDIR | 0700,
                             .name = "",
                             .pages = {}};
    Touch(KMEMFS_ROOT_INO);
  }
}

// What the inodes of a leaf have on media.
void ModelFs::LoadRecords(uint64_t page, const format::Recovery& recovery) {
  const kmemfs_media media = MediaOf(device_->media(), kUuid);
  const auto* records =
      static_cast<const kmemfs_inodes*>(device_->Page(page))->record;
  kmemfs_visitor visitor = {};
  visitor.meta = [](void* ctx, __u64 meta, kmemfs_page_kind, __u32) {
    static_cast<Node*>(ctx)->meta.push_back(meta);
    return 0;
  };
  for (int i = 0; i < KMEMFS_INODES_PER_PAGE; i++) {
    if (!records[i].ino) continue;
    Node& node = nodes_[le64toh(records[i].ino)];
    node.top = le64toh(records[i].extents);
    node.height = le32toh(records[i].extents_height);
    node.nr_runs = le64toh(records[i].nr_runs);
    node.xattr_page = le64toh(records[i].xattr_page);
    if (node.xattr_page) node.meta.push_back(node.xattr_page);
    (void)kmemfs_walk_runs(&media, &recovery.root, &records[i], &visitor, &node,
                           nullptr);
  }
}

bool ModelFs::WriteFile(Plan* plan, uint64_t ino) {
  const size_t before = plan->sink.taken.size();
  if (version_ == 1 ? !WriteExtents(plan, ino)
                    : !WriteRope(plan, ino) || !WriteXattrs(plan, ino))
    return false;
  plan->nodes[ino].meta.assign(
      plan->sink.taken.begin() + static_cast<ptrdiff_t>(before),
      plan->sink.taken.end());
  return true;
}

bool ModelFs::WriteRope(Plan* plan, uint64_t ino) {
  Node& node = plan->nodes[ino];
  std::vector<kmemfs_run_info> runs;
  uint64_t end = 0;
  for (const auto& [at, page] : node.pages) {
    if (at > end) runs.push_back({0, static_cast<__u32>(at - end)});
    runs.push_back({static_cast<__u32>(page), 1});
    end = at + 1;
  }
  const auto tree =
      format::WriteRopeTree(&plan->sink, runs, kSegmentFill, kNodeFill);
  if (!tree.has_value()) return false;
  node.top = tree->top;
  node.height = tree->height;
  node.nr_runs = node.pages.size();
  return true;
}

bool ModelFs::WriteXattrs(Plan* plan, uint64_t ino) {
  const std::string& bytes = now_.at(ino).xattrs;
  __u64 page = 0;
  if (!bytes.empty() &&
      kmemfs_write_xattrs(&plan->sink, ino, bytes.data(),
                          static_cast<__u32>(bytes.size()), &page))
    return false;
  plan->nodes[ino].xattr_page = page;
  return true;
}

// As a commit does that has no pages for them.
void ModelFs::KeepSums(Plan* plan) {
  plan->sums = sums_;
  plan->root.sums = root_.sums;
  plan->root.sums_height = root_.sums_height;
  plan->root.nr_sums_pages = root_.nr_sums_pages;
  if (root_.sums && fault_ != Fault::kStaleSums)
    plan->root.sums_generation =
        root_.sums_generation ? root_.sums_generation : root_.generation;
}

// Of the data that the last commit brought, as far as this one keeps it.
bool ModelFs::WriteSums(Plan* plan) {
  std::map<uint64_t, std::vector<__u32>> leaves;
  if (version_ == 1) return true;
  if (plan->sink.generation % 4 >= 2) {
    KeepSums(plan);
    return true;
  }
  plan->replaced.insert(plan->replaced.end(), sums_.begin(), sums_.end());
  for (const uint64_t page : committed_) {
    if (!owners_.contains(page)) continue;
    auto& leaf = leaves[page / KMEMFS_SUMS_PER_PAGE];
    leaf.resize(KMEMFS_SUMS_PER_PAGE);
    leaf[page % KMEMFS_SUMS_PER_PAGE] = kmemfs_page_sum(device_->Page(page));
  }
  kmemfs_tree tree;
  __u64 top = 0;
  __u32 height = 0;
  const size_t before = plan->sink.taken.size();
  kmemfs_tree_init(&tree, &plan->sink, KMEMFS_OWNER_SUMS);
  for (const auto& [leaf, sums] : leaves) {
    __u64 page = 0;
    if (kmemfs_tree_skip_leaves(&tree, leaf - tree.leaves) ||
        kmemfs_write_sums(&plan->sink, leaf, sums.data(), &page) ||
        kmemfs_tree_add_leaf(&tree, page))
      return false;
  }
  if (kmemfs_tree_finish(&tree, &top, &height)) return false;
  plan->sums.assign(plan->sink.taken.begin() + static_cast<ptrdiff_t>(before),
                    plan->sink.taken.end());
  plan->root.sums = top;
  plan->root.sums_height = height;
  plan->root.nr_sums_pages = tree.leaves;
  return true;
}

bool ModelFs::WriteExtents(Plan* plan, uint64_t ino) {
  Node& node = plan->nodes[ino];
  kmemfs_tree tree;
  __u64 top = 0;
  __u32 height = 0;
  kmemfs_tree_init(&tree, &plan->sink, ino);
  for (const auto& [at, page] : node.pages)
    if (kmemfs_tree_add_run(&tree, at, 1, page)) return false;
  if (kmemfs_tree_finish(&tree, &top, &height)) return false;
  node.top = top;
  node.height = height;
  node.nr_runs = tree.nr_runs;
  return true;
}

bool ModelFs::WriteInodes(Plan* plan, uint64_t leaf) {
  const uint64_t first = leaf * KMEMFS_INODES_PER_PAGE;
  const auto begin = now_.lower_bound(first);
  const auto end = now_.lower_bound(first + KMEMFS_INODES_PER_PAGE);
  if (begin == end) {
    plan->leaves.erase(leaf);
    return true;
  }
  __u64 page = 0;
  void* bytes = plan->sink.Alloc(&page);
  if (!bytes) return false;
  auto* records = static_cast<kmemfs_inodes*>(bytes);
  kmemfs_inodes_init(records, &plan->sink, leaf);
  for (auto file = begin; file != end; ++file) {
    const auto changed = plan->nodes.find(file->first);
    const Node& node =
        changed != plan->nodes.end() ? changed->second : nodes_[file->first];
    kmemfs_inode_record* record = &records->record[file->first - first];
    record->ino = htole64(file->first);
    record->parent = htole64(file->second.parent);
    record->size = htole64(file->second.size);
    record->extents = htole64(node.top);
    record->extents_height = htole32(node.height);
    record->nr_runs = htole64(node.nr_runs);
    record->nr_pages = htole64(node.pages.size());
    record->mode = htole32(file->second.mode);
    record->xattr_page = htole64(node.xattr_page);
    record->name_len = static_cast<__u8>(file->second.name.size());
    std::memcpy(record->name, file->second.name.data(),
                file->second.name.size());
  }
  if (fault_ == Fault::kRootBeforeInodes) {
    plan->late = records;
  } else {
    kmemfs_inodes_finish(records, &plan->sink);
  }
  plan->leaves[leaf] = page;
  return true;
}

bool ModelFs::WriteTable(Plan* plan) {
  kmemfs_tree tree;
  __u64 top = 0;
  __u32 height = 0;
  const size_t before = plan->sink.taken.size();
  kmemfs_tree_init(&tree, &plan->sink, 0);
  for (const auto& [leaf, page] : plan->leaves) {
    if (kmemfs_tree_skip_leaves(&tree, leaf - tree.leaves)) return false;
    if (kmemfs_tree_add_leaf(&tree, page)) return false;
  }
  if (kmemfs_tree_finish(&tree, &top, &height)) return false;
  plan->table.assign(plan->sink.taken.begin() + static_cast<ptrdiff_t>(before),
                     plan->sink.taken.end());
  plan->root.itable = top;
  plan->root.itable_height = height;
  plan->root.nr_inode_pages = tree.leaves;
  return true;
}

void ModelFs::Flush(const void* addr, size_t len) {
  if (flushes_++ == nth_ && fault_ == Fault::kNoNthFlush) return;
  if (fault_ == Fault::kOnlyFirstLineFlush) len = kLineSize;
  device_->Flush(addr, len);
}

void ModelFs::FlushData() {
  if (fault_ == Fault::kNoDataFlush) return;
  for (const uint64_t page : unflushed_)
    Flush(device_->Page(page), KMEMFS_PAGE_SIZE);
}

bool ModelFs::WriteTree(Plan* plan) {
  plan->leaves = leaves_;
  plan->replaced = table_;
  for (const auto& [ino, node] : nodes_) {
    if (!node.changed) continue;
    plan->replaced.insert(plan->replaced.end(), node.meta.begin(),
                          node.meta.end());
    if (now_.contains(ino)) plan->nodes[ino] = node;
  }
  for (const uint64_t leaf : changed_leaves_)
    if (leaves_.contains(leaf)) plan->replaced.push_back(leaves_[leaf]);
  if (fault_ == Fault::kReuseMetadataBeforeCommit) {
    for (const uint64_t page : plan->replaced) FreePage(page);
    plan->replaced.clear();
  }
  for (const auto& [ino, node] : plan->nodes)
    if (!WriteFile(plan, ino)) return false;
  for (const uint64_t leaf : changed_leaves_)
    if (!WriteInodes(plan, leaf)) return false;
  return WriteSums(plan) && WriteTable(plan);
}

void ModelFs::Publish(Plan* plan) {
  kmemfs_root_info* root = &plan->root;
  root->version = version_;
  root->generation = plan->sink.generation;
  root->nr_inodes = now_.size();
  root->nr_meta_pages =
      plan->leaves.size() + plan->table.size() + plan->sums.size();
  for (const auto& [ino, file] : now_) {
    const auto changed = plan->nodes.find(ino);
    const Node& node =
        changed != plan->nodes.end() ? changed->second : nodes_[ino];
    root->nr_meta_pages += node.meta.size();
    root->nr_file_pages += node.pages.size();
  }
  const unsigned int to = fault_ == Fault::kWriteRulingSlot ? slot_ : !slot_;
  pending_ = now_;
  auto* older = static_cast<kmemfs_root*>(device_->Page(1 + !to));
  if (fault_ == Fault::kRetireBeforeRoot) kmemfs_retire(&plan->sink, older);
  kmemfs_publish(&plan->sink, static_cast<kmemfs_root*>(device_->Page(1 + to)),
                 root);
  if (plan->late) {
    kmemfs_inodes_finish(plan->late, &plan->sink);
    device_->Fence();
  }
  if (fault_ != Fault::kNoRetire) kmemfs_retire(&plan->sink, older);
  slot_ = to;
}

void ModelFs::Finish(Plan* plan) {
  durable_ = now_;
  pending_.reset();
  generation_ = plan->sink.generation;
  root_ = plan->root;
  leaves_ = std::move(plan->leaves);
  table_ = std::move(plan->table);
  sums_ = std::move(plan->sums);
  for (auto& [ino, node] : plan->nodes) nodes_[ino] = std::move(node);
  committed_.clear();
  for (auto at = nodes_.begin(); at != nodes_.end();) {
    at->second.changed = false;
    for (const auto& [file_page, page] : at->second.pages)
      committed_.insert(page);
    at = now_.contains(at->first) ? std::next(at) : nodes_.erase(at);
  }
  changed_leaves_.clear();
  unflushed_.clear();
  for (const uint64_t page : plan->replaced) FreePage(page);
  for (const uint64_t page : dropped_) FreePage(page);
  dropped_.clear();
}

bool ModelFs::Commit() {
  const uint64_t next =
      fault_ == Fault::kSameGeneration ? generation_ : generation_ + 1;
  Plan plan(this, next);
  flushes_ = 0;
  FlushData();
  if (!WriteTree(&plan)) {
    for (const uint64_t page : plan.sink.taken) FreePage(page);
    return false;
  }
  Publish(&plan);
  Finish(&plan);
  return true;
}

}  // namespace daxsnap::crash
