// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_CLIENT_SNAPCTL_CONTEXT_H_
#define DAXSNAP_CLIENT_SNAPCTL_CONTEXT_H_

#include <functional>
#include <ostream>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "daxsnap/client.h"

namespace daxsnap::snapctl {

enum class Format { kTable, kJson };

// What all subcommands share: global options, and where output goes.
struct Context {
  std::string socket = client::kDefaultSocket;
  Format format = Format::kTable;
  // What stood after "--" on the command line of `run`.
  std::vector<std::string> after_dashes;
  std::ostream* out = nullptr;
  std::ostream* err = nullptr;
  // Whether `err` is a terminal that shows progress.
  bool show_progress = false;
};

// What the command line asks for; run after all of it has been parsed.
using Action = std::function<absl::Status()>;

}  // namespace daxsnap::snapctl

#endif  // DAXSNAP_CLIENT_SNAPCTL_CONTEXT_H_
