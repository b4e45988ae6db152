// SPDX-License-Identifier: Apache-2.0
#include "snapd/service/options.h"

#include <getopt.h>
#include <grp.h>

#include <cstdio>
#include <cstdlib>
#include <map>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/version.h"

namespace daxsnap {
namespace {

constexpr char kHelp[] =
    R"(snapd - keeps snapshots of processes in a pool of persistent memory

Usage: snapd [OPTION]...

The pool (at most one of these; without one snapd serves the pool that is
mounted on /run/daxsnap/pool, as soon as there is one):
  --pool-device=DEVICE  bring up the DAX device DEVICE, for example dax0.0, or
                        that of the pool with this label or UUID: bind it to
                        kmem, put its memory online, mount its kmemfs on
                        /run/daxsnap/pool, and use that
  --pool=DIRECTORY      use DIRECTORY. On kmemfs pages are taken by reference;
                        on any other file system they are copied

Options:
  --socket=PATH         listen on this UNIX socket
                        (default /run/daxsnap/snapd.sock)
  --socket-group=GROUP  let the members of GROUP, a name or a number, use the
                        socket, too; they must be trusted like root (default:
                        root only)
  --criu=PATH           CRIU program (default: sbin/criu beside snapd's bin)
  --criu-libdir=PATH    directory of daxsnap_plugin.so
                        (default: lib/criu beside snapd's bin)
  --criu-log-level=N    0 (least) to 4; messages are written while tasks stand
                        still (default 2)
  --work-dir=PATH       scratch space (default /run/daxsnap/work)
  --log-dir=PATH        where the logs of failed CRIU runs are kept, the newest
                        hundred (default /var/log/daxsnap)
  --log-level=LEVEL     error, warning, info or debug (default info); the log
                        goes to standard error
  --help                print this and exit
  --version             print the version and exit

SIGTERM and SIGINT end snapd: calls that run get 30 seconds to end, then they
are cancelled. Tasks never notice. Exit status: 0 after a signal, 1 if snapd
cannot start, 2 if the command line is wrong.

snapd needs root. See snapd(8) and snapctl(1).
)";

enum Option {
  kSocket = 256,
  kSocketGroup,
  kPoolDevice,
  kPool,
  kCriu,
  kCriuLibdir,
  kCriuLogLevel,
  kWorkDir,
  kLogDir,
  kLogLevel,
  kHelpOption,
  kVersionOption,
};

constexpr option kOptions[] = {
    {"socket", required_argument, nullptr, kSocket},
    {"socket-group", required_argument, nullptr, kSocketGroup},
    {"pool-device", required_argument, nullptr, kPoolDevice},
    {"pool", required_argument, nullptr, kPool},
    {"criu", required_argument, nullptr, kCriu},
    {"criu-libdir", required_argument, nullptr, kCriuLibdir},
    {"criu-log-level", required_argument, nullptr, kCriuLogLevel},
    {"work-dir", required_argument, nullptr, kWorkDir},
    {"log-dir", required_argument, nullptr, kLogDir},
    {"log-level", required_argument, nullptr, kLogLevel},
    {"help", no_argument, nullptr, kHelpOption},
    {"version", no_argument, nullptr, kVersionOption},
    {nullptr, 0, nullptr, 0},
};

absl::StatusOr<LogLevel> ParseLogLevel(const std::string& text) {
  static const auto& levels =
      *new std::map<std::string, LogLevel>{{"error", LogLevel::kError},
                                           {"warning", LogLevel::kWarning},
                                           {"info", LogLevel::kInfo},
                                           {"debug", LogLevel::kDebug}};
  const auto found = levels.find(text);
  if (found != levels.end()) return found->second;
  return absl::InvalidArgumentError(absl::StrCat(
      "--log-level is ", text, ", not error, warning, info or debug"));
}

absl::StatusOr<gid_t> ParseGroup(const std::string& text) {
  // The command line is parsed before there are threads.
  // NOLINTNEXTLINE(concurrency-mt-unsafe)
  if (const group* entry = getgrnam(text.c_str())) return entry->gr_gid;
  gid_t number = 0;
  // -1 means "leave it as it is" to chown(2).
  if (absl::SimpleAtoi(text, &number) && number != static_cast<gid_t>(-1)) {
    return number;
  }
  return absl::InvalidArgumentError(
      absl::StrCat("--socket-group is ", text, ", which is no group"));
}

// The directory above the one that holds this program.
std::string InstallPrefix() {
  char* self = realpath("/proc/self/exe", nullptr);
  if (self == nullptr) return "/usr";
  std::string path(self);
  std::free(self);
  for (int up = 0; up < 2; ++up) {
    const size_t slash = path.rfind('/');
    if (slash != std::string::npos) path.resize(slash);
  }
  return path;
}

absl::Status Apply(int code, const std::string& value, Options* options) {
  switch (code) {
    case kSocket:
      options->socket = value;
      return absl::OkStatus();
    case kSocketGroup: {
      auto group = ParseGroup(value);
      if (group.ok()) options->socket_group = *group;
      return group.status();
    }
    case kPoolDevice:
      options->pool_device = value;
      return absl::OkStatus();
    case kPool:
      options->pool = value;
      return absl::OkStatus();
    case kCriu:
      options->criu.criu_path = value;
      return absl::OkStatus();
    case kCriuLibdir:
      options->criu.plugin_directory = value;
      return absl::OkStatus();
    case kWorkDir:
      options->criu.work_directory = value;
      return absl::OkStatus();
    case kLogDir:
      options->criu.log_directory = value;
      return absl::OkStatus();
    case kCriuLogLevel:
      if (absl::SimpleAtoi(value, &options->criu.log_level) &&
          options->criu.log_level >= 0 && options->criu.log_level <= 4) {
        return absl::OkStatus();
      }
      return absl::InvalidArgumentError(
          absl::StrCat("--criu-log-level is ", value, ", not 0 to 4"));
    case kLogLevel: {
      auto level = ParseLogLevel(value);
      if (level.ok()) options->log_level = *level;
      return level.status();
    }
    case kHelpOption:
      std::fputs(kHelp, stdout);
      std::exit(0);
    case kVersionOption:
      std::printf("snapd %s\n", kVersion);
      std::exit(0);
    default:
      return absl::InvalidArgumentError("unknown option");
  }
}

}  // namespace

absl::StatusOr<Options> ParseOptions(int argc, char** argv) {
  Options options;
  const std::string prefix = InstallPrefix();
  options.socket = "/run/daxsnap/snapd.sock";
  options.criu.criu_path = absl::StrCat(prefix, "/sbin/criu");
  options.criu.plugin_directory = absl::StrCat(prefix, "/lib/criu");
  for (;;) {
    // The command line is parsed before there are threads.
    const int code = getopt_long(argc, argv, "", kOptions, nullptr);
    if (code == -1) break;
    // getopt has said what is wrong with it.
    if (code == '?') return absl::InvalidArgumentError("see snapd --help");
    absl::Status status =
        Apply(code, optarg == nullptr ? "" : optarg, &options);
    if (!status.ok()) return status;
  }
  if (optind != argc) {
    return absl::InvalidArgumentError(
        absl::StrCat("unexpected argument ", argv[optind]));
  }
  if (!options.pool.empty() && !options.pool_device.empty()) {
    return absl::InvalidArgumentError(
        "--pool and --pool-device exclude each other");
  }
  for (const std::string& path : {options.socket, options.criu.work_directory,
                                  options.criu.log_directory}) {
    if (absl::StartsWith(path, "/")) continue;
    return absl::InvalidArgumentError(
        absl::StrCat(path, " is not an absolute path"));
  }
  return options;
}

}  // namespace daxsnap
