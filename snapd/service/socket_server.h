// SPDX-License-Identifier: Apache-2.0
//
// The listening UNIX socket. gRPC does not tell a service who its peer is, so
// snapd accepts the connections itself, asks the kernel for the peer's
// credentials, and gives the connection to the gRPC server of that identity.
// One server for each identity, rather than one for all with a table of
// connections: so who calls cannot be mixed up, whatever descriptors and
// connections come and go.
#ifndef DAXSNAP_SNAPD_SERVICE_SOCKET_SERVER_H_
#define DAXSNAP_SNAPD_SERVICE_SOCKET_SERVER_H_

#include <sys/types.h>

#include <functional>
#include <map>
#include <memory>
#include <mutex>
#include <optional>
#include <string>
#include <thread>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/time/time.h"
#include "base/cancellation.h"
#include "base/executor.h"
#include "base/unique_fd.h"
#include "snapd/ops/access.h"
#include "snapd/ops/operations.h"

namespace daxsnap {

// Who is at the other end of a connected UNIX socket (SO_PEERCRED).
absl::StatusOr<Caller> ReadPeer(int socket);

// Makes the directory of a socket, unless it is there: others must reach the
// socket, whatever the umask is. Warns of one that is there and keeps members
// of `group` out.
absl::Status MakeSocketDirectory(const std::string& socket,
                                 std::optional<gid_t> group);

// Thread-safe.
class SocketServer {
 public:
  using PeerReader = std::function<absl::StatusOr<Caller>(int socket)>;

  // Listens on `path`, for this process's user only, and for `group` if there
  // is one: a user of the socket can have CRIU work as root on paths of theirs.
  // What each may do is decided by call. A socket that a dead snapd left is
  // replaced; one of a living snapd is not (FAILED_PRECONDITION). `operations`
  // outlives the server.
  static absl::StatusOr<std::unique_ptr<SocketServer>> Start(
      const std::string& path, std::optional<gid_t> group,
      Operations* operations, PeerReader peer_reader = ReadPeer);

  SocketServer(const SocketServer&) = delete;
  SocketServer& operator=(const SocketServer&) = delete;
  ~SocketServer();

  // Takes no more connections and lets running calls end; those that have not
  // after `grace` are cancelled and waited for. Only the first call counts.
  void Shutdown(absl::Duration grace);

 private:
  class IdentityServer;

  SocketServer(std::string path, std::optional<gid_t> group,
               Operations* operations, PeerReader peer_reader);
  absl::Status Listen();
  void AcceptLoop();
  void AcceptOne();
  // The server of that identity, or one that refuses if there are too many;
  // null if it cannot be started.
  IdentityServer* ServerFor(const Caller& caller);

  const std::string path_;
  const std::optional<gid_t> group_;
  Operations* const operations_;
  const PeerReader peer_reader_;
  UniqueFd lock_;
  UniqueFd listener_;
  Executor executor_;
  Cancellation stop_;
  // Touched by the accepting thread, and by Shutdown once that has ended.
  std::map<Caller, std::unique_ptr<IdentityServer>> servers_;
  std::unique_ptr<IdentityServer> refusing_;  // likewise
  std::once_flag shut_down_;
  std::thread accepting_;
};

}  // namespace daxsnap

#endif  // DAXSNAP_SNAPD_SERVICE_SOCKET_SERVER_H_
