// SPDX-License-Identifier: Apache-2.0
#include "snapd/service/options.h"

#include <grp.h>

#include <CLI/CLI.hpp>
#include <cstdio>
#include <cstdlib>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "absl/strings/match.h"
#include "absl/strings/numbers.h"
#include "absl/strings/str_cat.h"
#include "base/version.h"

namespace daxsnap {
namespace {

constexpr char kDescription[] =
    R"(snapd - keeps snapshots of processes in a pool of persistent memory

Without --pool and --pool-device snapd serves the pool that is mounted on
/run/daxsnap/pool, as soon as there is one.)";

constexpr char kFooter[] =
    R"(SIGTERM and SIGINT end snapd: calls that run get 30 seconds to end, then they
are cancelled. Tasks never notice. Exit status: 0 after a signal, 1 if snapd
cannot start, 2 if the command line is wrong.

snapd needs root. See snapd(8) and snapctl(1).)";

gid_t ParseGroup(const std::string& text) {
  // The command line is parsed before there are threads.
  // NOLINTNEXTLINE(concurrency-mt-unsafe)
  if (const group* entry = getgrnam(text.c_str())) return entry->gr_gid;
  gid_t number = 0;
  // -1 means "leave it as it is" to chown(2).
  if (absl::SimpleAtoi(text, &number) && number != static_cast<gid_t>(-1)) {
    return number;
  }
  throw CLI::ValidationError("--socket-group", text + " is no group");
}

std::string CheckAbsolute(const std::string& path) {
  return absl::StartsWith(path, "/") ? "" : path + " is not an absolute path";
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

// The name of the pool goes with that of where it lies.
void AddPoolOptions(CLI::App* app, Options* options) {
  CLI::Option* device =
      app->add_option("--pool-device", options->pool_device,
                      "Bring up the DAX device DEVICE, for example dax0.0, or "
                      "that of the pool with this label or UUID: bind it to "
                      "kmem, put its memory online, mount its kmemfs on "
                      "/run/daxsnap/pool, and use that")
          ->option_text("DEVICE");
  app->add_option("--pool", options->pool,
                  "Use DIRECTORY. On kmemfs pages are taken by reference; on "
                  "any other file system they are copied")
      ->option_text("DIRECTORY")
      ->excludes(device);
}

void AddCriuOptions(CLI::App* app, CriuOptions* criu) {
  app->add_option("--criu", criu->criu_path,
                  "CRIU program (default: sbin/criu beside snapd's bin)")
      ->option_text("PATH");
  app->add_option("--criu-libdir", criu->plugin_directory,
                  "Directory of daxsnap_plugin.so (default: lib/criu beside "
                  "snapd's bin)")
      ->option_text("PATH");
  app->add_option("--criu-log-level", criu->log_level,
                  "0 (least) to 4; messages are written while tasks stand "
                  "still (default 2)")
      ->option_text("N")
      ->check(CLI::Range(0, 4));
  app->add_option("--work-dir", criu->work_directory,
                  "Scratch space (default /run/daxsnap/work)")
      ->option_text("PATH")
      ->check(CheckAbsolute);
  app->add_option("--log-dir", criu->log_directory,
                  "Where the logs of CRIU runs that failed are kept, the "
                  "newest hundred (default /var/log/daxsnap)")
      ->option_text("PATH")
      ->check(CheckAbsolute);
}

}  // namespace

absl::StatusOr<Options> ParseOptions(int argc, char** argv) {
  Options options;
  const std::string prefix = InstallPrefix();
  options.socket = "/run/daxsnap/snapd.sock";
  options.criu.criu_path = absl::StrCat(prefix, "/sbin/criu");
  options.criu.plugin_directory = absl::StrCat(prefix, "/lib/criu");

  CLI::App app(kDescription, "snapd");
  // An administrator adds to what a unit file says.
  app.option_defaults()->multi_option_policy(CLI::MultiOptionPolicy::TakeLast);
  app.footer(kFooter);
  app.set_help_flag("--help", "Print this and exit");
  app.set_version_flag("--version", absl::StrCat("snapd ", kVersion),
                       "Print the version and exit");
  AddPoolOptions(&app, &options);
  app.add_option("--socket", options.socket,
                 "Listen on this UNIX socket (default /run/daxsnap/snapd.sock)")
      ->option_text("PATH")
      ->check(CheckAbsolute);
  app.add_option_function<std::string>(
         "--socket-group",
         [&options](const std::string& text) {
           options.socket_group = ParseGroup(text);
         },
         "Let the members of GROUP, a name or a number, use the socket, too; "
         "they must be trusted like root (default: root only)")
      ->option_text("GROUP");
  AddCriuOptions(&app, &options.criu);
  app.add_option("--log-level", options.log_level,
                 "error, warning, info or debug (default info); the log goes "
                 "to standard error")
      ->option_text("LEVEL")
      ->transform(CLI::CheckedTransformer(
          std::map<std::string, LogLevel>{{"error", LogLevel::kError},
                                          {"warning", LogLevel::kWarning},
                                          {"info", LogLevel::kInfo},
                                          {"debug", LogLevel::kDebug}}));
  // Those of a unit file whose variable is empty
  const auto says_nothing = [](const std::string& word) {
    return word == "--pool=" || word == "--pool-device=";
  };
  // CLI11 takes them from the back.
  std::vector<std::string> words;
  for (int i = argc - 1; i > 0; --i) {
    if (!says_nothing(argv[i])) words.emplace_back(argv[i]);
  }
  try {
    app.parse(std::move(words));
  } catch (const CLI::ParseError& error) {
    // --help and --version.
    if (error.get_exit_code() == 0) std::exit(app.exit(error));
    return absl::InvalidArgumentError(
        absl::StrCat(error.what(), "; see snapd --help"));
  }
  return options;
}

}  // namespace daxsnap
