// SPDX-License-Identifier: Apache-2.0
#include "host/task/tmpfiles.h"

#include <fcntl.h>
#include <fnmatch.h>

#include <algorithm>
#include <map>
#include <optional>
#include <utility>

#include "absl/strings/ascii.h"
#include "absl/strings/match.h"
#include "absl/strings/str_cat.h"
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

// The path with its specifiers filled in; nothing if one is not known.
std::optional<std::string> Expand(absl::string_view path) {
  static constexpr std::pair<char, absl::string_view> kSpecifiers[] = {
      {'%', "%"},        {'t', "/run"}, {'S', "/var/lib"}, {'C', "/var/cache"},
      {'L', "/var/log"}, {'T', "/tmp"}, {'V', "/var/tmp"}};
  std::string expanded;
  for (size_t i = 0; i < path.size(); ++i) {
    if (path[i] != '%') {
      expanded += path[i];
      continue;
    }
    const char letter = i + 1 < path.size() ? path[++i] : '\0';
    const auto* known =
        std::find_if(std::begin(kSpecifiers), std::end(kSpecifiers),
                     [&](const auto& entry) { return entry.first == letter; });
    if (known == std::end(kSpecifiers)) return std::nullopt;
    absl::StrAppend(&expanded, known->second);
  }
  while (expanded.size() > 1 && expanded.back() == '/') expanded.pop_back();
  return expanded;
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
  for (const auto& [name, file] : files) rules.Add(file.second, file.first);
  return rules;
}

void TmpfilesRules::Add(absl::string_view text, const std::string& file) {
  for (const absl::string_view line : absl::StrSplit(text, '\n')) {
    const absl::string_view content = absl::StripAsciiWhitespace(line);
    if (content.empty() || content[0] == '#') continue;
    const std::vector<std::string> words = Words(content);
    if (words.size() < 2 || words[0].empty()) continue;
    auto path = Expand(words[1]);
    if (!path.has_value() || !absl::StartsWith(*path, "/")) continue;
    Rule rule;
    rule.type = words[0][0];
    rule.path = *std::move(path);
    if (words.size() > 5 && words[5] != "-") rule.age = words[5];
    rule.file = file;
    AddTo(&rules_, rule);
    if (!absl::StrContains(words[0], '!')) AddTo(&aging_, rule);
  }
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
