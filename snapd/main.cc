// SPDX-License-Identifier: Apache-2.0
#include <pthread.h>
#include <systemd/sd-daemon.h>
#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <ctime>
#include <memory>
#include <string>
#include <utility>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "absl/time/time.h"
#include "base/errors.h"
#include "base/log.h"
#include "base/version.h"
#include "host/launch/launch.h"
#include "host/pool/pool.h"
#include "host/task/proc.h"
#include "snapd/engine/criu_engine.h"
#include "snapd/ops/operations.h"
#include "snapd/ops/pool_holder.h"
#include "snapd/ops/pool_opening.h"
#include "snapd/service/options.h"
#include "snapd/service/socket_server.h"

namespace daxsnap {
namespace {

// How long calls get to end by themselves when snapd is told to.
constexpr absl::Duration kShutdownGrace = absl::Seconds(30);
// After so long what waits for snapd to be ready need not wait for the pool.
// More than a worker of an earlier snapd gets to end, and less than systemd
// gives snapd to start.
constexpr absl::Duration kReadyPatience = absl::Seconds(60);

absl::Status PoolMissing(std::string message, std::string key,
                         std::string value, std::string hint) {
  return MakeError({.code = absl::StatusCode::kFailedPrecondition,
                    .reason = reason::kPoolMissing,
                    .message = std::move(message),
                    .hint = std::move(hint),
                    .metadata = {{std::move(key), std::move(value)}}});
}

absl::StatusOr<std::unique_ptr<Pool>> OpenDevice(const std::string& device) {
  auto attached = pool::Attach(device, {});
  if (!attached.ok()) {
    // To attach it by hand would fail alike.
    return PoolMissing(absl::StrCat("cannot bring up ", device, ": ",
                                    attached.status().message()),
                       "device", device,
                       "the message says what to do, or else the kernel log");
  }
  if (!attached->damage.empty()) {
    LogError(absl::StrCat(
        device, " is damaged, and can only be read: ", attached->damage));
  }
  if (attached->mount_point.empty()) {
    return PoolMissing(absl::StrCat(device, " holds no file system"), "device",
                       device, "name a pool of type fs by --pool-device");
  }
  return Pool::Open(attached->mount_point);
}

absl::StatusOr<std::unique_ptr<Pool>> OpenDefault() {
  const std::string path(pool::kDefaultMountPoint);
  auto mounts = pool::ListMounts();
  if (!mounts.ok()) return mounts.status();
  for (const pool::Mount& mount : *mounts) {
    if (mount.mount_point == path) return Pool::Open(path);
  }
  return PoolMissing(absl::StrCat("no pool is mounted on ", path), "path", path,
                     "attach a pool with `snapctl pool attach`");
}

PoolHolder::Opener MakeOpener(const Options& options) {
  if (!options.pool_device.empty()) {
    return [device = options.pool_device] { return OpenDevice(device); };
  }
  if (!options.pool.empty()) {
    return [path = options.pool] { return Pool::Open(path); };
  }
  return OpenDefault;
}

sigset_t BlockSignals() {
  sigset_t signals;
  sigemptyset(&signals);
  sigaddset(&signals, SIGTERM);
  sigaddset(&signals, SIGINT);
  pthread_sigmask(SIG_BLOCK, &signals, nullptr);
  (void)std::signal(SIGPIPE, SIG_IGN);
  return signals;
}

absl::Status Serve(const Options& options) {
  // Before any thread is made, so that all inherit it.
  const sigset_t signals = BlockSignals();
  if (absl::Status pids = launch::EnsurePidMax(); !pids.ok()) {
    LogWarning(absl::StrCat("PIDs of snapshots may collide with those of ",
                            "other tasks: ", pids.message()));
  }
  const ProcFs proc;
  CriuOptions criu = options.criu;
  criu.child_pids = launch::PidRange();
  HostActions host;
  host.sync_directory = absl::StrCat(criu.work_directory, "/syncs");
  CriuEngine engine(std::move(criu));
  PoolHolder pools(MakeOpener(options), proc, &engine);
  Operations operations(&pools, &engine, proc, std::move(host),
                        options.criu.work_directory + "/results");
  absl::Status made = MakeSocketDirectory(options.socket, options.socket_group);
  if (!made.ok()) return made;
  auto server =
      SocketServer::Start(options.socket, options.socket_group, &operations);
  if (!server.ok()) return server.status();
  LogInfo(absl::StrCat("snapd ", kVersion, " listens on ", options.socket));
  // Once the socket is ours: another snapd may be at work on that pool. And
  // ready once it is open, as who starts after snapd has use for it.
  PoolOpening opening(&pools, [] { sd_notify(0, "READY=1"); });
  const timespec patience = absl::ToTimespec(kReadyPatience);
  int signal = sigtimedwait(&signals, nullptr, &patience);
  if (signal < 0) {
    if (!opening.AwaitEnd(absl::ZeroDuration())) {
      LogWarning("the pool is still being opened; calls are told so");
      sd_notify(0, "READY=1");
    }
    sigwait(&signals, &signal);
  }
  LogInfo(absl::StrCat("signal ", signal, ": ending"));
  sd_notify(0, "STOPPING=1");
  const absl::Time deadline = absl::Now() + kShutdownGrace;
  (*server)->Shutdown(kShutdownGrace);
  if (!opening.AwaitEnd(deadline - absl::Now())) {
    LogWarning("the pool is still being opened; ending all the same");
    // Without destructors: that thread uses what they destroy.
    _exit(0);
  }
  return absl::OkStatus();
}

}  // namespace
}  // namespace daxsnap

int main(int argc, char** argv) {
  auto options = daxsnap::ParseOptions(argc, argv);
  if (!options.ok()) {
    const std::string message(options.status().message());
    std::fprintf(stderr, "snapd: %s\n", message.c_str());
    return 2;
  }
  daxsnap::SetLogLevel(options->log_level);
  if (absl::Status status = daxsnap::Serve(*options); !status.ok()) {
    daxsnap::LogError(status.message());
    return 1;
  }
  return 0;
}
