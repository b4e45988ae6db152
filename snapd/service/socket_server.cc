// SPDX-License-Identifier: Apache-2.0
#include "snapd/service/socket_server.h"

#include <fcntl.h>
#include <grpcpp/ext/proto_server_reflection_plugin.h>
#include <grpcpp/generic/async_generic_service.h>
#include <grpcpp/health_check_service_interface.h>
#include <grpcpp/server.h>
#include <grpcpp/server_builder.h>
#include <grpcpp/server_posix.h>
#include <poll.h>
#include <sys/file.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <cerrno>
#include <chrono>
#include <cstring>
#include <utility>
#include <vector>

#include "absl/strings/str_cat.h"
#include "absl/time/clock.h"
#include "base/errors.h"
#include "base/files.h"
#include "base/log.h"
#include "snapd/service/service.h"

namespace daxsnap {
namespace {

// Servers for so many identities besides root; each costs some threads.
constexpr size_t kMaxIdentities = 64;
constexpr absl::Duration kRetryAfter = absl::Milliseconds(100);

// Answers all calls alike.
class RefusingService : public grpc::CallbackGenericService {
 public:
  grpc::ServerGenericBidiReactor* CreateReactor(
      grpc::GenericCallbackServerContext* /*context*/) override {
    class Reactor : public grpc::ServerGenericBidiReactor {
     public:
      Reactor() {
        Finish(ToGrpc(
            MakeError({.code = absl::StatusCode::kUnavailable,
                       .reason = reason::kOverloaded,
                       .message = absl::StrCat("snapd serves ", kMaxIdentities,
                                               " other users already"),
                       .hint = "restart snapd, or run the command as root"})));
      }
      void OnDone() override { delete this; }
    };
    return new Reactor();
  }
};

}  // namespace

absl::StatusOr<Caller> ReadPeer(int socket) {
  ucred peer;
  socklen_t size = sizeof(peer);
  if (getsockopt(socket, SOL_SOCKET, SO_PEERCRED, &peer, &size) != 0) {
    return ErrnoError(errno, "cannot read the peer's credentials");
  }
  return Caller{.uid = peer.uid, .gid = peer.gid};
}

absl::Status MakeSocketDirectory(const std::string& socket,
                                 std::optional<gid_t> group) {
  const std::string directory = socket.substr(0, socket.rfind('/'));
  auto made = EnsureDirectories(directory, 0755);
  if (!made.ok() || !group.has_value()) return made.status();
  for (std::string at = directory; !at.empty(); at.resize(at.rfind('/'))) {
    struct stat info;
    if (stat(at.c_str(), &info) != 0) {
      return ErrnoError(errno, absl::StrCat("cannot stat ", at));
    }
    const mode_t needed = info.st_gid == *group ? S_IXGRP : S_IXOTH;
    if ((info.st_mode & needed) != 0) continue;
    LogWarning(absl::StrCat("members of group ", *group, " cannot reach ",
                            socket, ": ", at,
                            " does not let them through; chmod it, or have the "
                            "socket elsewhere (--socket)"));
  }
  return absl::OkStatus();
}

// The gRPC server for all connections of one identity.
class SocketServer::IdentityServer {
 public:
  IdentityServer(const Caller& caller, Operations* operations,
                 Executor* executor)
      : services_(MakeServices(caller, operations, executor)) {
    grpc::ServerBuilder builder;
    for (const auto& service : services_) {
      builder.RegisterService(service.get());
    }
    server_ = builder.BuildAndStart();
  }
  // One that refuses all calls.
  IdentityServer() : refusing_(std::make_unique<RefusingService>()) {
    grpc::ServerBuilder builder;
    builder.RegisterCallbackGenericService(refusing_.get());
    server_ = builder.BuildAndStart();
  }

  bool running() const { return server_ != nullptr; }

  void Serve(UniqueFd connection) {
    grpc::AddInsecureChannelFromFd(server_.get(), connection.release());
  }

  void Shutdown(absl::Time deadline) {
    server_->Shutdown(absl::ToChronoTime(deadline));
    server_->Wait();
  }

 private:
  std::vector<std::unique_ptr<grpc::Service>> services_;
  std::unique_ptr<RefusingService> refusing_;
  std::unique_ptr<grpc::Server> server_;
};

SocketServer::SocketServer(std::string path, std::optional<gid_t> group,
                           Operations* operations, PeerReader peer_reader)
    : path_(std::move(path)),
      group_(group),
      operations_(operations),
      peer_reader_(std::move(peer_reader)) {}

absl::StatusOr<std::unique_ptr<SocketServer>> SocketServer::Start(
    const std::string& path, std::optional<gid_t> group, Operations* operations,
    PeerReader peer_reader) {
  grpc::EnableDefaultHealthCheckService(true);
  grpc::reflection::InitProtoReflectionServerBuilderPlugin();
  // The constructor is private, so make_unique cannot call it.
  std::unique_ptr<SocketServer> server(
      new SocketServer(path, group, operations, std::move(peer_reader)));
  if (absl::Status status = server->Listen(); !status.ok()) return status;
  server->accepting_ = std::thread([raw = server.get()] { raw->AcceptLoop(); });
  return server;
}

SocketServer::~SocketServer() { Shutdown(absl::ZeroDuration()); }

absl::Status SocketServer::Listen() {
  const std::string lock_path = absl::StrCat(path_, ".lock");
  UniqueFd lock(
      open(lock_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600));
  if (!lock.valid()) {
    return ErrnoError(errno, absl::StrCat("cannot open ", lock_path));
  }
  if (flock(lock.get(), LOCK_EX | LOCK_NB) != 0) {
    return absl::FailedPreconditionError(
        absl::StrCat("another snapd listens on ", path_));
  }
  lock_ = std::move(lock);
  sockaddr_un address;
  std::memset(&address, 0, sizeof(address));
  address.sun_family = AF_UNIX;
  if (path_.size() >= sizeof(address.sun_path)) {
    return absl::InvalidArgumentError(
        absl::StrCat("socket path is longer than ",
                     sizeof(address.sun_path) - 1, " bytes: ", path_));
  }
  std::memcpy(address.sun_path, path_.data(), path_.size());
  listener_ =
      UniqueFd(socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0));
  if (!listener_.valid()) return ErrnoError(errno, "cannot make a socket");
  if (unlink(path_.c_str()) != 0 && errno != ENOENT) {
    return ErrnoError(errno, absl::StrCat("cannot replace ", path_));
  }
  // The file gets the mode of the socket (unix_bind_bsd() in net/unix/
  // af_unix.c), so that at no time it is open to others.
  if (fchmod(listener_.get(), 0600) != 0 ||
      bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address),
           sizeof(address)) != 0 ||
      (group_.has_value() &&
       (lchown(path_.c_str(), static_cast<uid_t>(-1), *group_) != 0 ||
        chmod(path_.c_str(), 0660) != 0)) ||
      listen(listener_.get(), SOMAXCONN) != 0) {
    return ErrnoError(errno, absl::StrCat("cannot listen on ", path_));
  }
  return absl::OkStatus();
}

void SocketServer::AcceptLoop() {
  for (;;) {
    pollfd poll_for[] = {
        {.fd = listener_.get(), .events = POLLIN, .revents = 0},
        {.fd = stop_.fd(), .events = POLLIN, .revents = 0},
    };
    const int fault = FileFault("poll", path_);
    if (fault != 0 || poll(poll_for, 2, -1) < 0) {
      const int error = fault != 0 ? fault : errno;
      if (error == EINTR) continue;
      // Of memory, for example: it does not last.
      LogError(absl::StrCat("cannot wait for connections: errno ", error));
      absl::SleepFor(kRetryAfter);
      continue;
    }
    if (poll_for[1].revents != 0) return;
    if (poll_for[0].revents != 0) AcceptOne();
  }
}

void SocketServer::AcceptOne() {
  UniqueFd connection(
      accept4(listener_.get(), nullptr, nullptr, SOCK_CLOEXEC | SOCK_NONBLOCK));
  if (!connection.valid()) {
    if (errno == EMFILE || errno == ENFILE || errno == ENOMEM) {
      LogError(absl::StrCat("cannot accept a connection: errno ", errno));
      // The connection stays in the queue; look again when there may be room.
      pollfd stop = {.fd = stop_.fd(), .events = POLLIN, .revents = 0};
      poll(&stop, 1, static_cast<int>(absl::ToInt64Milliseconds(kRetryAfter)));
    }
    return;
  }
  auto caller = peer_reader_(connection.get());
  if (!caller.ok()) {
    LogWarning(caller.status().message());
    return;
  }
  IdentityServer* server = ServerFor(*caller);
  if (server == nullptr) {
    LogWarning(absl::StrCat("refused a connection of uid ", caller->uid));
    return;
  }
  server->Serve(std::move(connection));
}

SocketServer::IdentityServer* SocketServer::ServerFor(const Caller& caller) {
  // Root's groups make no difference.
  const Caller key = caller.is_root() ? Caller{.uid = 0, .gid = 0} : caller;
  if (const auto found = servers_.find(key); found != servers_.end()) {
    return found->second.get();
  }
  const auto others = servers_.size() - servers_.count({.uid = 0, .gid = 0});
  if (others >= kMaxIdentities && !key.is_root()) {
    if (refusing_ == nullptr) refusing_ = std::make_unique<IdentityServer>();
    return refusing_->running() ? refusing_.get() : nullptr;
  }
  auto server = std::make_unique<IdentityServer>(key, operations_, &executor_);
  if (!server->running()) return nullptr;
  return servers_.emplace(key, std::move(server)).first->second.get();
}

void SocketServer::Shutdown(absl::Duration grace) {
  std::call_once(shut_down_, [&] {
    stop_.Cancel();
    if (accepting_.joinable()) accepting_.join();
    listener_.reset();
    if (lock_.valid()) unlink(path_.c_str());
    const absl::Time deadline = absl::Now() + grace;
    for (auto& [caller, server] : servers_) server->Shutdown(deadline);
    servers_.clear();
    if (refusing_ != nullptr && refusing_->running()) {
      refusing_->Shutdown(deadline);
    }
    refusing_.reset();
  });
}

}  // namespace daxsnap
