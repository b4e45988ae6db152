// SPDX-License-Identifier: Apache-2.0
#ifndef DAXSNAP_HOST_TASK_TMPFILES_H_
#define DAXSNAP_HOST_TASK_TMPFILES_H_

#include <map>
#include <string>
#include <vector>

#include "absl/status/status.h"
#include "absl/status/statusor.h"
#include "absl/strings/string_view.h"

namespace daxsnap {

// What systemd-tmpfiles(8) does to files, by its configuration tmpfiles.d(5).
class TmpfilesRules {
 public:
  enum class Fate {
    kStays,
    // Removed when it has not been used for some time.
    kAges,
    // A rule may be about it: its path has a specifier that is not known.
    kMayBeRemoved,
    // Removed by each boot.
    kRemoved,
  };
  struct Verdict {
    Fate fate = Fate::kStays;
    // The line that says so and its file: "D /tmp
    // (/usr/lib/tmpfiles.d/tmp.conf)".
    std::string rule;
    // "30d" for kAges.
    std::string age;
  };

  // No rules at all.
  TmpfilesRules() = default;

  // Reads the configuration of the system below `root` ("" for the real one),
  // and what its specifiers stand for. What is not understood is left out; what
  // cannot be read is an error.
  static absl::StatusOr<TmpfilesRules> Read(const std::string& root = "");

  // Adds the lines of one file. Of several that decide over one path the one
  // that was added first counts, as with systemd-tmpfiles.
  void Add(absl::string_view text, const std::string& file);

  // What becomes of `path`, absolute and without symlinks, whatever it is.
  Verdict FateOf(const std::string& path) const;

  // Whether a boot makes the directory `path`, or one below it.
  bool MakesDirectory(const std::string& path) const;

 private:
  struct Rule {
    char type = 0;
    std::string path;  // a pattern for some types, and in maybe_
    std::string age;   // empty if it has none
    std::string file;
  };

  // A path with its specifiers filled in.
  struct Expanded {
    std::string path;
    // One is not known: there is a '*' for it, and the path is a pattern.
    bool unsure = false;
    // It has the ID of the boot, which the next one has not.
    bool of_this_boot = false;
  };
  Expanded Expand(absl::string_view path, bool pattern) const;

  // Fills specifiers_ with those of this system.
  absl::Status ReadSpecifiers(const std::string& root);

  Verdict SureFateOf(const std::string& path) const;

  // Whether the path of a rule of that type is a pattern.
  static bool IsGlob(char type);
  static bool Matches(const Rule& rule, const std::string& path);

  // Unless an earlier one decides over its path already.
  static void AddTo(std::vector<Rule>* rules, const Rule& rule);

  // What boots go by.
  std::vector<Rule> rules_;
  // What the removal of old files goes by: all but those for boots alone, which
  // hide no other there.
  std::vector<Rule> aging_;
  // Those that remove something, of whose path not all is known.
  std::vector<Rule> maybe_;
  // What stands for "%t" and so on, by letter.
  std::map<char, std::string> specifiers_ = {
      {'%', "%"},          {'t', "/run"}, {'S', "/var/lib"}, {'L', "/var/log"},
      {'C', "/var/cache"}, {'T', "/tmp"}, {'V', "/var/tmp"}, {'h', "/root"},
      {'u', "root"},       {'U', "0"},    {'g', "root"},     {'G', "0"}};
};

}  // namespace daxsnap

#endif  // DAXSNAP_HOST_TASK_TMPFILES_H_
