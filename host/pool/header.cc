// SPDX-License-Identifier: Apache-2.0
#include <endian.h>
#include <fcntl.h>
#include <format.h>
#include <linux/kmem_blk_format.h>
#include <linux/kmem_persist_header.h>
#include <sys/mman.h>
#include <unistd.h>
#include <uuid/uuid.h>

#include <cerrno>
#include <cstring>
#include <ctime>
#include <memory>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/str_cat.h"
#include "base/utf8.h"
#include "host/pool/device.h"

namespace daxsnap::pool {
namespace {

constexpr std::uint64_t kPage = KMEM_PERSIST_PAGE_SIZE;
constexpr std::uint64_t kHeadBytes = KMEM_PERSIST_HEAD_PAGES * kPage;
constexpr std::size_t kMagicSize = 8;
// Head pages and a little to put something into.
constexpr std::uint64_t kMinimumSize = 16 * kPage;

// The first bytes of /dev/daxX.Y, mapped.
class Mapping {
 public:
  enum class Access { kRead, kWrite };

  // At least `bytes`, from the start.
  static absl::StatusOr<Mapping> Open(const Device& device, Access access,
                                      std::uint64_t bytes) {
    const std::string path = absl::StrCat("/dev/", device.name);
    UniqueFd fd(
        open(path.c_str(),
             (access == Access::kWrite ? O_RDWR : O_RDONLY) | O_CLOEXEC));
    if (!fd.valid())
      return absl::ErrnoToStatus(errno, absl::StrCat("cannot open ", path));
    // device_dax maps whole units of its alignment only.
    const std::size_t unit =
        device.align != 0 ? device.align : std::size_t{2} << 20;
    const std::size_t length = (bytes + unit - 1) / unit * unit;
    void* base =
        mmap(nullptr, length,
             access == Access::kWrite ? PROT_READ | PROT_WRITE : PROT_READ,
             MAP_SHARED, fd.get(), 0);
    if (base == MAP_FAILED)
      return absl::ErrnoToStatus(errno, absl::StrCat("cannot map ", path));
    return Mapping(base, length);
  }

  Mapping(Mapping&& other) noexcept
      : base_(std::exchange(other.base_, nullptr)), length_(other.length_) {}
  Mapping& operator=(Mapping&&) = delete;
  ~Mapping() {
    if (base_ != nullptr) munmap(base_, length_);
  }

  void* base() const { return base_; }

 private:
  Mapping(void* base, std::size_t length) : base_(base), length_(length) {}

  void* base_;
  std::size_t length_;
};

std::string UuidText(const std::uint8_t* uuid) {
  char text[UUID_STR_LEN];
  uuid_unparse_lower(uuid, text);
  return text;
}

Header Describe(const kmem_persist_header& raw) {
  Header header;
  header.type = static_cast<PoolType>(le32toh(raw.type));
  header.uuid = UuidText(raw.uuid);
  const auto* label = reinterpret_cast<const char*>(raw.label);
  header.label.assign(label, strnlen(label, sizeof(raw.label)));
  header.range_size = le64toh(raw.range_size);
  return header;
}

// The pool that the pages behind the header are of.
struct Root {
  PoolType type;
  const std::uint8_t* uuid;
};

// `base`: the head pages of a device. nullopt: none of them is a root.
// DATA_LOSS: they are of several pools.
absl::StatusOr<std::optional<Root>> FindRoot(const void* base) {
  std::optional<Root> found;
  for (int page = 1; page < KMEM_PERSIST_HEAD_PAGES; ++page) {
    const char* at = static_cast<const char*>(base) + page * kPage;
    const std::uint32_t type = kmem_persist_root_type(at);
    if (type == 0) continue;
    const Root root = {static_cast<PoolType>(type),
                       reinterpret_cast<const kmem_persist_root*>(at)->uuid};
    if (found.has_value() &&
        (found->type != root.type ||
         std::memcmp(found->uuid, root.uuid, sizeof(uuid_t)) != 0)) {
      return absl::DataLossError(
          absl::StrCat("it has roots of two pools, ", UuidText(found->uuid),
                       " and ", UuidText(root.uuid), ", and a header of none"));
    }
    found = root;
  }
  return found;
}

// Why a page 0 that is no header does not mean that there is no pool; or OK.
absl::Status CheckHeaderless(const void* base) {
  const absl::StatusOr<std::optional<Root>> root = FindRoot(base);
  if (!root.ok()) return root.status();
  if (!root->has_value()) return absl::OkStatus();
  return absl::DataLossError(absl::StrCat(
      "the pool header is destroyed: page 0 is none, but what is behind it is "
      "of pool ",
      UuidText((*root)->uuid), ", type ", PoolTypeName((*root)->type),
      "; `snapctl pool repair` makes the header anew"));
}

absl::Status AtDevice(const std::string& name, const absl::Status& status) {
  return absl::Status(status.code(),
                      absl::StrCat(name, ": ", status.message()));
}

absl::StatusOr<std::optional<Header>> Parse(const void* base,
                                            const Device& device) {
  if (!kmem_persist_header_present(base)) {
    absl::Status status = CheckHeaderless(base);
    if (!status.ok()) return AtDevice(device.name, status);
    return std::nullopt;
  }
  // A copy: what is verified must be what is used.
  const auto copy = std::make_unique<kmem_persist_header>();
  std::memcpy(copy.get(), base, sizeof(*copy));
  kmem_persist_why why = {};
  const int r = kmem_persist_header_verify(copy.get(), device.size, &why);
  if (r == 0) return Describe(*copy);
  const std::string message =
      absl::StrCat(device.name, ": the pool header cannot be used: ", why.text);
  if (r == -EOPNOTSUPP) return absl::UnimplementedError(message);
  return absl::DataLossError(message);
}

absl::Status CheckLabel(const std::string& label) {
  if (label.size() >= sizeof(kmem_persist_header::label)) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the label has ", label.size(), " bytes; at most 63 are possible"));
  }
  if (!IsPrintableUtf8(label)) {
    return absl::InvalidArgumentError(
        "the label is not UTF-8 without control characters");
  }
  return absl::OkStatus();
}

absl::Status CheckOptions(std::uint64_t size, const CreateOptions& options) {
  if (absl::Status status = CheckLabel(options.label); !status.ok())
    return status;
  if (size < kMinimumSize || size % kPage != 0 ||
      size / kPage > KMEMFS_MAX_PAGES) {
    return absl::InvalidArgumentError(absl::StrCat(
        "the device has ", size, " bytes; a pool has ", kMinimumSize, " to ",
        KMEMFS_MAX_PAGES * kPage, ", in whole pages"));
  }
  if (options.capacity == 0) return absl::OkStatus();
  if (options.type != PoolType::kBlk) {
    return absl::InvalidArgumentError(
        absl::StrCat("pools of type ", PoolTypeName(options.type),
                     " have no capacity; those of type blk have"));
  }
  const std::uint64_t most = kmem_blk_max_blocks(size / kPage) * kPage;
  if (options.capacity % kPage != 0 || options.capacity > most) {
    return absl::InvalidArgumentError(
        absl::StrCat("a capacity of ", options.capacity,
                     " bytes is not possible; it is a multiple of ", kPage,
                     " and at most ", most, " on this device"));
  }
  return absl::OkStatus();
}

std::int64_t NowNs() {
  timespec now;
  clock_gettime(CLOCK_REALTIME, &now);
  return std::int64_t{now.tv_sec} * 1'000'000'000 + now.tv_nsec;
}

// Capacity of a pool of type blk, in blocks.
std::uint64_t Blocks(std::uint64_t size, const CreateOptions& options) {
  return options.capacity != 0 ? options.capacity / kPage
                               : kmem_blk_max_blocks(size / kPage);
}

// The last store: without its magic the header is a damaged one, which the
// kernel refuses.
void StoreMagic(void* page, FlushFunction flush) {
  std::memcpy(page, KMEM_PERSIST_MAGIC, kMagicSize);
  flush(page, kMagicSize);
}

// The device, which is locked, as it is now, bound to device_dax.
absl::StatusOr<Device> OpenForWriting(const Device& device) {
  absl::StatusOr<Device> now = FindDevice(device.name);
  if (!now.ok()) return now.status();
  if (now->driver == Driver::kKmem) {
    return absl::FailedPreconditionError(
        absl::StrCat(device.name,
                     " is in use as system memory; its memory is free again "
                     "after a reboot in "
                     "which nothing attaches it"));
  }
  if (now->driver == Driver::kNone) {
    absl::Status status = BindTo(*now, Driver::kDeviceDax);
    if (!status.ok()) return status;
  }
  return now;
}

}  // namespace

absl::string_view PoolTypeName(PoolType type) {
  switch (type) {
    case PoolType::kNone:
      return "none";
    case PoolType::kBlk:
      return "blk";
    case PoolType::kFs:
      return "fs";
  }
  return "unknown";
}

absl::StatusOr<PoolType> ParsePoolType(absl::string_view name) {
  for (PoolType type : {PoolType::kFs, PoolType::kNone, PoolType::kBlk}) {
    if (name == PoolTypeName(type)) return type;
  }
  return absl::InvalidArgumentError(absl::StrCat(
      "there is no pool type \"", name, "\"; types are fs, blk and none"));
}

absl::StatusOr<std::optional<Header>> ReadHeader(const Device& device) {
  if (device.driver != Driver::kDeviceDax) {
    return absl::FailedPreconditionError(absl::StrCat(
        device.name,
        ": the header can only be read while the device is bound to "
        "device_dax; it is bound to ",
        DriverName(device.driver)));
  }
  absl::StatusOr<Mapping> mapping =
      Mapping::Open(device, Mapping::Access::kRead, kHeadBytes);
  if (!mapping.ok()) return mapping.status();
  return Parse(mapping->base(), device);
}

absl::StatusOr<Header> Create(const Device& device,
                              const CreateOptions& options) {
  absl::StatusOr<UniqueFd> lock = LockDevice(device);
  if (!lock.ok()) return lock.status();
  const absl::StatusOr<Device> now = OpenForWriting(device);
  if (!now.ok()) return now.status();
  if (absl::Status status = CheckOptions(now->size, options); !status.ok())
    return status;
  absl::StatusOr<Mapping> mapping = Mapping::Open(
      *now, Mapping::Access::kWrite, EmptyPoolBytes(now->size, options));
  if (!mapping.ok()) return mapping.status();
  absl::StatusOr<Header> header =
      WriteEmptyPool(mapping->base(), now->size, options, FlushCpuCaches);
  if (header.ok()) return header;
  return AtDevice(device.name, header.status());
}

absl::StatusOr<Header> Repair(const Device& device, const std::string& label) {
  absl::StatusOr<UniqueFd> lock = LockDevice(device);
  if (!lock.ok()) return lock.status();
  const absl::StatusOr<Device> now = OpenForWriting(device);
  if (!now.ok()) return now.status();
  absl::StatusOr<Mapping> mapping =
      Mapping::Open(*now, Mapping::Access::kWrite, kHeadBytes);
  if (!mapping.ok()) return mapping.status();
  absl::StatusOr<Header> header =
      RepairHeader(mapping->base(), now->size, label, FlushCpuCaches);
  if (header.ok()) return header;
  return AtDevice(device.name, header.status());
}

absl::StatusOr<Header> RepairHeader(void* base, std::uint64_t size,
                                    const std::string& label,
                                    FlushFunction flush) {
  if (absl::Status status = CheckLabel(label); !status.ok()) return status;
  auto* page = static_cast<char*>(base);
  const auto header = std::make_unique<kmem_persist_header>();
  std::memcpy(header.get(), page, kPage);
  const bool has_magic = std::memcmp(page, KMEM_PERSIST_MAGIC, kMagicSize) == 0;
  // Without the magic only its crc tells a header.
  std::memset(header->magic, 0, kMagicSize);
  if (kmem_persist_header_present(header.get())) {
    if (has_magic) {
      return absl::FailedPreconditionError(
          "the header is as it was written; there is nothing to repair");
    }
    std::memcpy(header->magic, KMEM_PERSIST_MAGIC, kMagicSize);
  } else {
    const absl::StatusOr<std::optional<Root>> root = FindRoot(base);
    if (!root.ok()) return root.status();
    if (!root->has_value()) {
      return absl::FailedPreconditionError(
          "nothing on the device says which pool it held");
    }
    kmem_persist_header_init(header.get(),
                             static_cast<std::uint32_t>((*root)->type),
                             (*root)->uuid, label.c_str(), size);
  }
  kmem_persist_why why = {};
  if (kmem_persist_header_verify(header.get(), size, &why) != 0)
    return absl::DataLossError(why.text);
  // As when it is created: the magic comes last.
  std::memset(page, 0, kMagicSize);
  flush(page, kMagicSize);
  std::memcpy(page + kMagicSize,
              reinterpret_cast<const char*>(header.get()) + kMagicSize,
              kPage - kMagicSize);
  flush(page, kPage);
  StoreMagic(page, flush);
  return Describe(*header);
}

std::uint64_t EmptyPoolBytes(std::uint64_t size, const CreateOptions& options) {
  std::uint64_t pages = KMEM_PERSIST_HEAD_PAGES;
  if (options.type == PoolType::kBlk)
    pages += kmem_blk_map_pages(Blocks(size, options));
  return pages * kPage;
}

absl::StatusOr<Header> WriteEmptyPool(void* base, std::uint64_t size,
                                      const CreateOptions& options,
                                      FlushFunction flush) {
  if (absl::Status status = CheckOptions(size, options); !status.ok())
    return status;
  if (options.overwrite == Overwrite::kRefuse &&
      (kmem_persist_header_present(base) || !CheckHeaderless(base).ok())) {
    return absl::AlreadyExistsError(
        "it holds a pool already, which would be lost; --force overwrites it");
  }
  auto* page = static_cast<char*>(base);
  // While what is behind the header changes there is no pool.
  std::memset(page, 0, kPage);
  flush(page, kPage);

  const auto header = std::make_unique<kmem_persist_header>();
  uuid_t uuid;
  uuid_generate_random(uuid);
  kmem_persist_header_init(header.get(),
                           static_cast<std::uint32_t>(options.type), uuid,
                           options.label.c_str(), size);

  auto* slots = reinterpret_cast<kmemfs_root*>(page + kPage);
  switch (options.type) {
    case PoolType::kFs:
      kmemfs_mkfs(slots, uuid, 2, NowNs());
      break;
    case PoolType::kBlk:
      kmem_blk_mkfs(slots, uuid, Blocks(size, options));
      break;
    case PoolType::kNone:
      std::memset(slots, 0, KMEMFS_ROOT_SLOTS * kPage);
      break;
  }
  std::memcpy(page + kMagicSize,
              reinterpret_cast<const char*>(header.get()) + kMagicSize,
              kPage - kMagicSize);
  flush(page, EmptyPoolBytes(size, options));
  StoreMagic(page, flush);
  return Describe(*header);
}

}  // namespace daxsnap::pool
