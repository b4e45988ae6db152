// SPDX-License-Identifier: Apache-2.0
#include "host/task/tmpfiles.h"

#include <fcntl.h>
#include <fnmatch.h>
#include <sys/utsname.h>

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
#include "absl/strings/str_replace.h"
#include "absl/strings/str_split.h"
#include "absl/strings/strip.h"
#include "base/errors.h"
#include "base/files.h"

namespace daxsnap {
namespace {

constexpr size_t kMaxFile = size_t{1} << 20;

// The earlier ones hide files of the same name in the later ones.
constexpr const char* kDirectories[] = {"/etc/tmpfiles.d", "/run/tmpfiles.d",
                                        "/usr/local/lib/tmpfiles.d",
                                        "/usr/lib/tmpfiles.d"};

// The words of a line, with quotes and backslashes undone.
std::vector<std::string> Words(absl::string_view line) {
  std::vector<std::string> words;
  std::string word;
  bool in_word = false;
  char quote = 0;
  for (size_t i = 0; i < line.size(); ++i) {
    const char c = line[i];
    if (quote == 0 && absl::ascii_isspace(c)) {
      if (in_word) words.push_back(std::exchange(word, {}));
      in_word = false;
      continue;
    }
    in_word = true;
    if (c == '\\' && i + 1 < line.size()) {
      word += line[++i];
    } else if (quote == 0 && (c == '"' || c == '\'')) {
      quote = c;
    } else if (c == quote) {
      quote = 0;
    } else {
      word += c;
    }
  }
  if (in_word) words.push_back(std::move(word));
  return words;
}

// The value of a line of os-release(5); empty if there is none.
std::string ValueOf(absl::string_view text, absl::string_view name) {
  for (absl::string_view line : absl::StrSplit(text, '\n')) {
    if (!absl::ConsumePrefix(&line, name) || !absl::ConsumePrefix(&line, "=")) {
      continue;
    }
    const std::vector<std::string> words = Words(line);
    return words.empty() ? "" : words[0];
  }
  return "";
}

// The first line of a file; nothing if there is no such file.
absl::StatusOr<std::optional<std::string>> FirstLine(const std::string& path) {
  auto text = ReadFileAt(AT_FDCWD, path, kMaxFile);
  if (absl::IsNotFound(text.status())) return std::nullopt;
  if (!text.ok()) return text.status();
  return text->substr(0, text->find('\n'));
}

// "/a/b" and "/a" for "/a/b/c", the deepest first, and not "/".
std::vector<std::string> Ancestors(const std::string& path) {
  std::vector<std::string> ancestors;
  for (size_t slash = path.rfind('/'); slash != 0 && slash != std::string::npos;
       slash = path.rfind('/', slash - 1)) {
    ancestors.push_back(path.substr(0, slash));
  }
  return ancestors;
}

bool IsOneOf(char type, absl::string_view types) {
  return absl::StrContains(types, absl::string_view(&type, 1));
}

}  // namespace

absl::StatusOr<TmpfilesRules> TmpfilesRules::Read(const std::string& root) {
  std::map<std::string, std::pair<std::string, std::string>> files;
  for (const char* path : kDirectories) {
    const std::string directory = absl::StrCat(root, path);
    // It may be a symlink.
    auto opened = OpenDirectory(AT_FDCWD, directory + "/.");
    if (absl::IsNotFound(opened.status())) continue;
    if (!opened.ok()) return opened.status();
    auto names = ListDirectory(opened->get());
    if (!names.ok()) return names.status();
    for (const std::string& name : *names) {
      if (!absl::EndsWith(name, ".conf") || files.contains(name)) continue;
      const std::string file = absl::StrCat(directory, "/", name);
      auto text = ReadFileAt(AT_FDCWD, file, kMaxFile);
      // A dangling symlink, or a directory: hides nothing.
      if (absl::IsNotFound(text.status()) ||
          ErrnoNameOf(text.status()) == "EISDIR") {
        continue;
      }
      if (!text.ok()) return text.status();
      files[name] = {file, *std::move(text)};
    }
  }
  TmpfilesRules rules;
  if (absl::Status read = rules.ReadSpecifiers(root); !read.ok()) return read;
  for (const auto& [name, file] : files) rules.Add(file.second, file.first);
  return rules;
}

void TmpfilesRules::Add(absl::string_view text, const std::string& file) {
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    const absl::string_view content = absl::StripAsciiWhitespace(line);
    if (content.empty() || content[0] == '#') continue;
    const std::vector<std::string> words = Words(content);
    if (words.size() < 2 || words[0].empty()) continue;
    Rule rule;
    rule.type = words[0][0];
    Expanded path = Expand(words[1], IsGlob(rule.type));
    if (!absl::StartsWith(path.path, "/") && !path.unsure) continue;
    rule.path = std::move(path.path);
    if (words.size() > 5 && words[5] != "-") rule.age = words[5];
    rule.file = file;
    if (path.unsure) {
      const bool ages = IsOneOf(rule.type, "dDevqQC") && !rule.age.empty();
      if (ages || IsOneOf(rule.type, "rRD")) maybe_.push_back(std::move(rule));
      continue;
    }
    if (!path.of_this_boot) AddTo(&rules_, rule);
    if (!absl::StrContains(words[0], '!')) AddTo(&aging_, rule);
  }
}

// source: specifier_table and specifier_printf() of systemd
TmpfilesRules::Expanded TmpfilesRules::Expand(absl::string_view path,
                                              bool pattern) const {
  Expanded expanded;
  // The same as a pattern that matches nothing else.
  std::string literal;
  const auto add = [&](char c) {
    expanded.path += c;
    if (!pattern && absl::StrContains("*?[\\", absl::string_view(&c, 1))) {
      literal += '\\';
    }
    literal += c;
  };
  for (size_t i = 0; i < path.size(); ++i) {
    if (path[i] != '%' || i + 1 == path.size()) {
      add(path[i]);
      continue;
    }
    const char letter = path[++i];
    const auto known = specifiers_.find(letter);
    if (known == specifiers_.end()) {
      expanded.unsure = true;
      literal += '*';
      continue;
    }
    if (letter == 'b') expanded.of_this_boot = true;
    for (const char c : known->second) add(c);
  }
  if (expanded.unsure) expanded.path = std::move(literal);
  while (expanded.path.size() > 1 && expanded.path.back() == '/') {
    expanded.path.pop_back();
  }
  return expanded;
}

absl::Status TmpfilesRules::ReadSpecifiers(const std::string& root) {
  utsname system;
  if (uname(&system) == 0) {
    const std::string host = system.nodename;
    const absl::string_view machine = system.machine;
    specifiers_['H'] = host;
    specifiers_['l'] = host.substr(0, host.find('.'));
    specifiers_['v'] = system.release;
    if (machine == "x86_64") specifiers_['a'] = "x86-64";
    if (machine == "aarch64") specifiers_['a'] = "arm64";
  }
  auto machine_id = FirstLine(root + "/etc/machine-id");
  if (!machine_id.ok()) return machine_id.status();
  if (machine_id->has_value()) specifiers_['m'] = **machine_id;
  auto boot_id = FirstLine("/proc/sys/kernel/random/boot_id");
  if (!boot_id.ok()) return boot_id.status();
  if (boot_id->has_value()) {
    specifiers_['b'] = absl::StrReplaceAll(**boot_id, {{"-", ""}});
  }
  for (const char* path : {"/etc/os-release", "/usr/lib/os-release"}) {
    auto release = ReadFileAt(AT_FDCWD, root + path, kMaxFile);
    if (absl::IsNotFound(release.status())) continue;
    if (!release.ok()) return release.status();
    static constexpr std::pair<char, absl::string_view> kFields[] = {
        {'A', "IMAGE_VERSION"}, {'B', "BUILD_ID"},
        {'M', "IMAGE_ID"},      {'o', "ID"},
        {'w', "VERSION_ID"},    {'W', "VARIANT_ID"}};
    for (const auto& [letter, name] : kFields) {
      specifiers_[letter] = ValueOf(*release, name);
    }
    break;
  }
  return absl::OkStatus();
}

// source: item_compatible() and takes_ownership() in src/tmpfiles/tmpfiles.c of
// systemd, which keeps paths and patterns apart
void TmpfilesRules::AddTo(std::vector<Rule>* rules, const Rule& rule) {
  static constexpr absl::string_view kDecide = "fFdDvqQpLcbCwexXrR";
  const bool decided =
      IsOneOf(rule.type, kDecide) &&
      std::any_of(rules->begin(), rules->end(), [&rule](const Rule& earlier) {
        return earlier.path == rule.path && IsOneOf(earlier.type, kDecide) &&
               IsGlob(earlier.type) == IsGlob(rule.type);
      });
  if (!decided) rules->push_back(rule);
}

bool TmpfilesRules::IsGlob(char type) { return IsOneOf(type, "wrRexXzZ"); }

bool TmpfilesRules::Matches(const Rule& rule, const std::string& path) {
  if (!IsGlob(rule.type)) return rule.path == path;
  return fnmatch(rule.path.c_str(), path.c_str(), FNM_PATHNAME | FNM_PERIOD) ==
         0;
}

TmpfilesRules::Verdict TmpfilesRules::FateOf(const std::string& path) const {
  Verdict verdict = SureFateOf(path);
  if (verdict.fate != Fate::kStays) return verdict;
  const std::vector<std::string> above = Ancestors(path);
  for (const Rule& rule : maybe_) {
    const auto matches = [&rule](const std::string& at) {
      // What the specifier stands for may have slashes.
      return fnmatch(rule.path.c_str(), at.c_str(), 0) == 0;
    };
    const bool itself = IsOneOf(rule.type, "rR") && matches(path);
    if (!itself && (rule.type == 'r' ||
                    !std::any_of(above.begin(), above.end(), matches))) {
      continue;
    }
    return {.fate = Fate::kMayBeRemoved,
            .rule = absl::StrCat(std::string(1, rule.type), " ", rule.path,
                                 " (", rule.file, ")"),
            .age = rule.age};
  }
  return verdict;
}

TmpfilesRules::Verdict TmpfilesRules::SureFateOf(
    const std::string& path) const {
  const auto verdict = [](Fate fate, const Rule& rule) {
    return Verdict{.fate = fate,
                   .rule = absl::StrCat(std::string(1, rule.type), " ",
                                        rule.path, " (", rule.file, ")"),
                   .age = rule.age};
  };
  const std::vector<std::string> above = Ancestors(path);
  for (const Rule& rule : rules_) {
    const auto matches = [&rule](const std::string& at) {
      return Matches(rule, at);
    };
    const bool itself = IsOneOf(rule.type, "rR") && matches(path);
    // "D" empties the directory, "R" removes it with what is in it.
    const bool below = IsOneOf(rule.type, "DR") &&
                       std::any_of(above.begin(), above.end(), matches);
    if (itself || below) return verdict(Fate::kRemoved, rule);
  }
  // Of aging the deepest rule has the say, also where it says "never".
  const auto find = [this](const std::string& at, absl::string_view types) {
    const auto found =
        std::find_if(aging_.begin(), aging_.end(), [&](const Rule& rule) {
          return IsOneOf(rule.type, types) && Matches(rule, at);
        });
    return found == aging_.end() ? nullptr : &*found;
  };
  if (find(path, "xXdDevqQC") != nullptr) return {};
  for (const std::string& at : above) {
    const Rule* rule = find(at, "xdDevqQC");
    if (rule == nullptr) continue;
    if (rule->type == 'x' || rule->age.empty()) return {};
    return verdict(Fate::kAges, *rule);
  }
  return {};
}

bool TmpfilesRules::MakesDirectory(const std::string& path) const {
  return std::any_of(rules_.begin(), rules_.end(), [&path](const Rule& rule) {
    return IsOneOf(rule.type, "dDvqQ") &&
           (rule.path == path ||
            absl::StartsWith(rule.path, absl::StrCat(path, "/")));
  });
}

}  // namespace daxsnap
