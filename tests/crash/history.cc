// SPDX-License-Identifier: Apache-2.0
#include "tests/crash/history.h"

#include <sys/stat.h>

#include <memory>
#include <random>

#include "tests/unit/format/recovery.h"

namespace daxsnap::crash {
namespace {

constexpr uint64_t kRoomy = 64;  // pages of the device
constexpr uint64_t kTight = 23;  // so few that commits find no space
// Of version 2 there is more metadata.
constexpr uint64_t kRoomy2 = 96;
constexpr uint64_t kTight2 = 34;
constexpr int kLives = 3;
constexpr int kOperations = 60;  // a life
constexpr uint64_t kCommitEvery = 6;

class History {
 public:
  History(uint64_t seed, const Mistake& mistake, uint32_t version)
      : random_(seed),
        explorer_(seed ^ 0x5eed),
        mistake_(mistake),
        version_(version),
        device_(Pages(seed, version)) {}

  HistoryResult Run() {
    for (int life = 0; life < kLives && explorer_.violation().empty(); life++) {
      Start(life == 0);
      for (int i = 0; i < kOperations && explorer_.violation().empty(); i++) {
        Operate();
        explorer_.Explore(device_, *fs_);
      }
      if (!explorer_.violation().empty()) break;
      device_.Restart(Crash());
      result_.lives++;
    }
    result_.violation = explorer_.violation();
    result_.coverage = explorer_.coverage();
    return result_;
  }

 private:
  static uint64_t Pages(uint64_t seed, uint32_t version) {
    if (seed % 3 == 0) return version == 2 ? kTight2 : kTight;
    return version == 2 ? kRoomy2 : kRoomy;
  }

  void Start(bool format) {
    fs_ = std::make_unique<ModelFs>(&device_, mistake_, version_);
    if (format) {
      fs_->Format();
    } else {
      fs_->Mount(format::Recover(MediaOf(device_.media(), kUuid)));
    }
    device_.set_observer([this] { explorer_.Explore(device_, *fs_); });
  }

  // Between two operations, or in a commit; there late rather than early, for
  // the interesting moments are around the root.
  Bytes Crash() {
    device_.set_observer(nullptr);
    Bytes image = explorer_.RandomCrash(device_, *fs_);
    if (Below(2) == 0) return image;
    device_.set_observer([this, &image] {
      if (Below(4) == 0) image = explorer_.RandomCrash(device_, *fs_);
    });
    fs_->Commit();
    device_.set_observer(nullptr);
    return image;
  }

  uint64_t Below(uint64_t n) { return random_() % n; }

  uint64_t AnyInode() {
    auto file = fs_->now().begin();
    std::advance(file, static_cast<ptrdiff_t>(Below(fs_->now().size())));
    return file->first;
  }

  uint64_t AnyDirectory() {
    for (int i = 0; i < 8; i++) {
      const uint64_t ino = AnyInode();
      if (S_ISDIR(fs_->now().at(ino).mode)) return ino;
    }
    return KMEMFS_ROOT_INO;
  }

  std::string AnyName() { return std::string(1 + Below(3), "abc"[Below(3)]); }

  void Operate() {
    if (Below(kCommitEvery) == 0) {
      fs_->Commit() ? result_.commits++ : result_.full++;
      return;
    }
    switch (Below(version_ == 2 ? 13 : 12)) {
      case 0:
      case 1:
        fs_->Create(AnyDirectory(), AnyName(), S_IFREG | 0644);
        break;
      case 2:
        fs_->Create(KMEMFS_ROOT_INO, AnyName(), S_IFDIR | 0755);
        break;
      case 3:
        fs_->Truncate(AnyInode(), Below(kMaxFilePages));
        break;
      case 4:
        fs_->Unlink(AnyInode());
        break;
      case 5:
        fs_->Rename(AnyInode(), AnyDirectory(), AnyName());
        break;
      case 6:
        fs_->Clone(AnyInode(), AnyInode());
        break;
      case 12:
        fs_->SetXattrs(AnyInode(), random_());
        break;
      default:
        fs_->Write(AnyInode(), Below(kMaxFilePages), random_());
        break;
    }
  }

  std::mt19937_64 random_;
  Explorer explorer_;
  const Mistake mistake_;
  const uint32_t version_;
  Device device_;
  std::unique_ptr<ModelFs> fs_;
  HistoryResult result_;
};

}  // namespace

HistoryResult RunHistory(uint64_t seed, const Mistake& mistake,
                         uint32_t version) {
  return History(seed, mistake, version).Run();
}

}  // namespace daxsnap::crash
