// SPDX-License-Identifier: Apache-2.0
//
// The device side of a pool: finding a DAX device, writing its header, turning
// it into memory and mounting its kmemfs. snapctl and snapd share it. It knows
// nothing about snapshots.
//
// All functions need root unless they say otherwise, block, and keep no state:
// they are safe to call from any thread. Two callers that change one device at
// the same time are serialised by a lock on /run/daxsnap/DEVICE.lock.
#ifndef DAXSNAP_HOST_POOL_POOL_H_
#define DAXSNAP_HOST_POOL_POOL_H_

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace daxsnap::pool {

inline constexpr absl::string_view kDefaultMountPoint = "/run/daxsnap/pool";

// Driver that a DAX device is bound to.
enum class Driver {
  kNone,       // disabled
  kDeviceDax,  // a character device /dev/daxX.Y
  kKmem,       // system memory
};

absl::string_view DriverName(Driver driver);  // "none", "device_dax", "kmem"

struct Device {
  std::string name;         // "dax0.0"
  std::uint64_t size = 0;   // bytes
  std::uint64_t align = 0;  // bytes
  int target_node = -1;     // NUMA node its memory gets; -1: none
  Driver driver = Driver::kNone;
};

// All DAX devices, ordered by name. Needs no root.
absl::StatusOr<std::vector<Device>> ListDevices();

// The device called `name` ("dax0.0" or "/dev/dax0.0"). Needs no root.
// NOT_FOUND with the names of those that exist.
absl::StatusOr<Device> FindDevice(absl::string_view name);

// What is kept on the device: the type in its header.
enum class PoolType { kNone = 1, kBlk = 2, kFs = 3 };

absl::string_view PoolTypeName(PoolType type);  // "none", "blk", "fs"

// Inverse of PoolTypeName. INVALID_ARGUMENT with the names there are.
absl::StatusOr<PoolType> ParsePoolType(absl::string_view name);

struct Header {
  PoolType type = PoolType::kFs;
  std::string uuid;  // text form
  std::string label;
  std::uint64_t range_size = 0;  // bytes
};

// Reads the header through /dev/daxX.Y (device bound to device_dax:
// FAILED_PRECONDITION otherwise). No header: nullopt. One that is damaged, even
// if only the roots behind it tell that it was there, newer, or of an unknown
// type: DATA_LOSS or UNIMPLEMENTED with the reason.
absl::StatusOr<std::optional<Header>> ReadHeader(const Device& device);

// What the header says, wherever it can be read now: of an attached device the
// kernel tells, of one that is bound to device_dax the device. nullopt: no
// pool, or bound to nothing. As ReadHeader() for the rest.
absl::StatusOr<std::optional<Header>> Identify(const Device& device);

// The device of the pool that `name` names: a DAX device, or UUID or label of a
// pool. A device's name comes first. NOT_FOUND with what there is;
// FAILED_PRECONDITION if several pools have this label.
absl::StatusOr<Device> FindPool(absl::string_view name);

enum class Overwrite { kRefuse, kForce };

struct CreateOptions {
  PoolType type = PoolType::kFs;
  std::string label = {};  // UTF-8 without control characters, at most 63 bytes
  // Of a block device, in bytes, whole blocks of 4096; 0: as much as the device
  // has room for. Blocks that are not stored take no memory, so this is a limit
  // and not a reservation.
  std::uint64_t capacity = 0;
  // Whether to write over a device that holds a pool, its header intact or not.
  Overwrite overwrite = Overwrite::kRefuse;
};

// Makes the device an empty pool: takes the old header away, writes the root
// slots, makes them durable, then the header, its magic last, so that a crash
// leaves what was there before, no pool, a header that the kernel refuses, or
// the new pool. What the device held is lost; that nobody else has it open is
// up to the caller. FAILED_PRECONDITION: it is in use as memory;
// ALREADY_EXISTS: it has a header, intact or not, or the root of a pool, and
// `overwrite` is kRefuse.
absl::StatusOr<Header> Create(const Device& device,
                              const CreateOptions& options);

// The same on a device of `size` bytes, of which EmptyPoolBytes() are at
// `base`, for tests and for files. `flush` makes [address, address+length)
// durable before it returns.
using FlushFunction = void (*)(const void* address, std::size_t length);
absl::StatusOr<Header> WriteEmptyPool(void* base, std::uint64_t size,
                                      const CreateOptions& options,
                                      FlushFunction flush);

// Makes the header of a pool anew, where its bytes are damaged: from the header
// if only its magic is wrong, else from what the roots say, with `label`, which
// is not told there, and the device's present size. Nothing else is written.
// The device is bound to device_dax then. FAILED_PRECONDITION: it is in use as
// memory, the header has a right checksum, or there is no root; DATA_LOSS:
// roots of several pools; INVALID_ARGUMENT: not a label.
absl::StatusOr<Header> Repair(const Device& device, const std::string& label);

// The same on the head pages of a device of `size` bytes, at `base`.
absl::StatusOr<Header> RepairHeader(void* base, std::uint64_t size,
                                    const std::string& label,
                                    FlushFunction flush);

// How much at the start of a device of `size` bytes an empty pool takes.
std::uint64_t EmptyPoolBytes(std::uint64_t size, const CreateOptions& options);

// The block device of a pool of type blk that is attached.
struct BlockDevice {
  std::string path;            // "/dev/kmem1"
  std::uint64_t capacity = 0;  // bytes
  // Blocks of 4096 bytes: stored; free memory of the node, so as many more can
  // be stored now; given back by discards since it was attached.
  std::uint64_t mapped = 0;
  std::uint64_t free = 0;
  std::uint64_t discarded = 0;
};

// nullopt if `device` has none: not attached, or of another type. Needs no
// root. `sysfs` is for tests.
absl::StatusOr<std::optional<BlockDevice>> FindBlockDevice(
    const Device& device, const std::string& sysfs = "/sys");

struct AttachOptions {
  // Where to mount; made, 0700, if it is not there.
  std::string mount_point = std::string(kDefaultMountPoint);
  // Mount options of kmemfs, "" for the defaults: "byref=off,commit=5"; and
  // "ro", to mount it read-only.
  std::string mount_options;
};

struct Attached {
  Device device;
  std::string mount_point;    // empty for types without a file system
  std::string block_device;   // "/dev/kmem1"; empty for types without one
  bool was_attached = false;  // nothing had to be done
  // The file system is mounted so that nothing can be written.
  bool read_only = false;
  // What the kernel said of it, or that it said something, if the pool does not
  // hold as a whole; it cannot be mounted otherwise then.
  std::string damage;
};

// Brings the device up, which is named as for FindPool(): binds it to kmem,
// whose driver puts its memory online and keeps what is stored, and mounts its
// kmemfs, read-only if that is all that damage has left. Steps done already are
// not repeated. Refuses a device without a
// header of ours (FAILED_PRECONDITION): it would become plain memory. If the
// kernel refuses it, the error carries the kernel's reason from its log, and
// the device is bound to device_dax again.
absl::StatusOr<Attached> Attach(absl::string_view name,
                                const AttachOptions& options);

// Commits and unmounts the pool at `mount_point`. The memory stays system
// memory until the next boot: giving it back would mean to move every page in
// use. FAILED_PRECONDITION if something still uses the mount; NOT_FOUND if
// nothing is mounted there.
absl::Status Detach(absl::string_view mount_point);

// A mounted kmemfs, from /proc/self/mountinfo. Needs no root.
struct Mount {
  std::string device;  // "dax0.0"
  std::string mount_point;
  bool read_only = false;
};
absl::StatusOr<std::vector<Mount>> ListMounts();

// Where the device is mounted; FAILED_PRECONDITION if it is not. Needs no root.
absl::StatusOr<Mount> FindMount(const Device& device);

struct Upgraded {
  Mount mount;
  std::uint32_t from = 0;  // versions of the format; equal: nothing was done
  std::uint32_t to = 0;
};

// Gives the pool, which is named as for FindPool() and is mounted, the newest
// format that the kernel writes, in one commit: a crash leaves it in the old
// format or in the new one, with all it holds. Older kernels refuse it then,
// and there is no way back. Asking again changes nothing. FAILED_PRECONDITION:
// not mounted, or read-only; UNIMPLEMENTED: the kernel cannot;
// RESOURCE_EXHAUSTED: no room for a second set of metadata, and nothing has
// changed.
absl::StatusOr<Upgraded> Upgrade(absl::string_view name);

// Writes [address, address+length) back from the CPU caches and waits: by clwb,
// clflushopt or clflush, whichever the CPU has, and a fence.
void FlushCpuCaches(const void* address, std::size_t length);

}  // namespace daxsnap::pool

#endif  // DAXSNAP_HOST_POOL_POOL_H_
