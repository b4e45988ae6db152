// SPDX-License-Identifier: Apache-2.0
#include "host/task/tmpfiles.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/utsname.h>

#include <algorithm>
#include <cerrno>

#include "absl/strings/str_cat.h"
#include "base/errors.h"
#include "base/files.h"
#include "tests/unit/base/testing.h"

namespace daxsnap {
namespace {

using Fate = TmpfilesRules::Fate;

Fate FateOf(const std::string& text, const std::string& path) {
  TmpfilesRules rules;
  rules.Add(text, "x.conf");
  return rules.FateOf(path).fate;
}

TEST(Tmpfiles, BootEmptiesWhatItIsToldTo) {
  constexpr char kText[] =
      "# D /var\n\n"
      "D /tmp 1777 root root -\n"
      "D! /srv/x/ 1777 root root 10d\n"
      "R! /var/lib/a*\n"
      "r! /var/lib/b/*.pid\n"
      "R \"/var/with blank\"\n"
      "d /var/made 0755 root root -\n";
  EXPECT_EQ(FateOf(kText, "/tmp"), Fate::kStays) << "the directory itself";
  EXPECT_EQ(FateOf(kText, "/tmp/x"), Fate::kRemoved);
  EXPECT_EQ(FateOf(kText, "/tmp/x/y"), Fate::kRemoved);
  EXPECT_EQ(FateOf(kText, "/tmpx"), Fate::kStays);
  EXPECT_EQ(FateOf(kText, "/srv/x/y"), Fate::kRemoved);
  EXPECT_EQ(FateOf(kText, "/var/lib/abc"), Fate::kRemoved);
  EXPECT_EQ(FateOf(kText, "/var/lib/abc/d/e"), Fate::kRemoved);
  EXPECT_EQ(FateOf(kText, "/var/lib/b"), Fate::kStays);
  EXPECT_EQ(FateOf(kText, "/var/lib/b/1.pid"), Fate::kRemoved);
  EXPECT_EQ(FateOf(kText, "/var/lib/b/1.pid/x"), Fate::kStays);
  EXPECT_EQ(FateOf(kText, "/var/lib/b/c/1.pid"), Fate::kStays);
  EXPECT_EQ(FateOf(kText, "/var/with blank/x"), Fate::kRemoved);
  EXPECT_EQ(FateOf(kText, "/var/made/x"), Fate::kStays);
}

TEST(Tmpfiles, AgeIsThatOfTheDeepestRule) {
  constexpr char kText[] =
      "q /var/tmp 1777 root root 30d\n"
      "d /var/tmp/kept 0755 root root -\n"
      "x /var/tmp/left-*\n"
      "X /var/tmp/alone\n"
      "e /var/cache/* - - - 5d\n";
  EXPECT_EQ(FateOf(kText, "/var/tmp"), Fate::kStays);
  EXPECT_EQ(FateOf(kText, "/var/tmp/x"), Fate::kAges);
  EXPECT_EQ(FateOf(kText, "/var/tmp/x/y"), Fate::kAges);
  EXPECT_EQ(FateOf(kText, "/var/tmp/kept/y"), Fate::kStays);
  EXPECT_EQ(FateOf(kText, "/var/tmp/left-1"), Fate::kStays);
  EXPECT_EQ(FateOf(kText, "/var/tmp/left-1/x"), Fate::kStays);
  EXPECT_EQ(FateOf(kText, "/var/tmp/alone"), Fate::kStays);
  EXPECT_EQ(FateOf(kText, "/var/tmp/alone/x"), Fate::kAges);
  EXPECT_EQ(FateOf(kText, "/var/cache/a/b"), Fate::kAges);
  EXPECT_EQ(FateOf(kText, "/var/cache/a"), Fate::kStays);
}

TEST(Tmpfiles, OfSeveralRulesForAPathTheFirstCounts) {
  EXPECT_EQ(FateOf("d /tmp\nD /tmp\n", "/tmp/x"), Fate::kStays);
  EXPECT_EQ(FateOf("D /tmp\nd /tmp\n", "/tmp/x"), Fate::kRemoved);
  EXPECT_EQ(FateOf("x /srv/a\nR /srv/a\n", "/srv/a"), Fate::kStays);
  // Patterns and paths are apart, and some types decide nothing.
  EXPECT_EQ(FateOf("d /tmp\nR /tmp\n", "/tmp/x"), Fate::kRemoved);
  EXPECT_EQ(FateOf("z /srv/a\nR /srv/a\n", "/srv/a"), Fate::kRemoved);
  // Where no boot is under way, a rule for boots hides no other.
  EXPECT_EQ(FateOf("d! /var/tmp - - - -\nq /var/tmp - - - 30d\n", "/var/tmp/x"),
            Fate::kAges);
  EXPECT_EQ(FateOf("d! /var/tmp - - - 5d\n", "/var/tmp/x"), Fate::kStays);
}

TEST(Tmpfiles, SaysWhichRule) {
  TmpfilesRules rules;
  rules.Add("q /var/tmp 1777 root root 30d\n", "/usr/lib/tmpfiles.d/t.conf");
  const TmpfilesRules::Verdict verdict = rules.FateOf("/var/tmp/x");
  EXPECT_EQ(verdict.rule, "q /var/tmp (/usr/lib/tmpfiles.d/t.conf)");
  EXPECT_EQ(verdict.age, "30d");
}

TEST(Tmpfiles, SpecifiersAreFilledIn) {
  EXPECT_EQ(FateOf("D %T\n", "/tmp/x"), Fate::kRemoved);
  EXPECT_EQ(FateOf("R %V/a%%b\n", "/var/tmp/a%b"), Fate::kRemoved);
  EXPECT_EQ(FateOf("D %h/a-%u-%G\n", "/root/a-root-0/x"), Fate::kRemoved);
  EXPECT_EQ(FateOf("R /tmp/%\n", "/tmp/x"), Fate::kStays);
  EXPECT_EQ(FateOf("R /tmp/%\n", "/tmp/%"), Fate::kRemoved);
}

TEST(Tmpfiles, LinesWithSpecifiersThatAreNotKnownMayBeAboutIt) {
  EXPECT_EQ(FateOf("R /tmp/a[%?*\n", "/tmp/a[x"), Fate::kMayBeRemoved);
  EXPECT_EQ(FateOf("D /tmp/%?*\n", "/tmp/x*/y"), Fate::kMayBeRemoved);
  EXPECT_EQ(FateOf("D /tmp/%?*\n", "/tmp/x/y"), Fate::kStays);
  EXPECT_EQ(FateOf("D %?\n", "/srv/x/y"), Fate::kMayBeRemoved);
  EXPECT_EQ(FateOf("d /srv/%? - - - 5d\n", "/srv/x/y"), Fate::kMayBeRemoved);
  EXPECT_EQ(FateOf("d /srv/%?\n", "/srv/x/y"), Fate::kStays);
  EXPECT_EQ(FateOf("x /srv/%?\nD /srv\n", "/srv/x"), Fate::kRemoved);
  EXPECT_EQ(FateOf("R /tmp/%?\nD /tmp\n", "/tmp/x"), Fate::kRemoved);
}

TEST(Tmpfiles, SpecifiersOfTheSystem) {
  TempDirectory root;
  const auto add = [&root](const std::string& path, const std::string& text) {
    const std::string full = root.path() + path;
    ASSERT_TRUE(EnsureDirectories(full.substr(0, full.rfind('/'))).ok());
    ASSERT_TRUE(ReplaceFileAt(AT_FDCWD, full, text).ok());
  };
  add("/etc/machine-id", "0123abc\n");
  add("/usr/lib/os-release", "ID=debian\nVERSION_ID=\"12\"\n");
  add("/etc/tmpfiles.d/a.conf",
      "D /srv/%m\nD /srv/%o-%w%B\nD /srv/%H\nD /srv/%v\nD /srv/b/%b\n"
      "q /srv/c/%b - - - 5d\n");
  auto rules = TmpfilesRules::Read(root.path());
  ASSERT_TRUE(rules.ok()) << rules.status();
  utsname system;
  ASSERT_EQ(uname(&system), 0);
  auto boot = ReadFileAt(AT_FDCWD, "/proc/sys/kernel/random/boot_id", 99);
  ASSERT_TRUE(boot.ok());
  boot->pop_back();
  boot->erase(std::remove(boot->begin(), boot->end(), '-'), boot->end());
  const auto fate = [&](const std::string& path) {
    return rules->FateOf(path).fate;
  };
  EXPECT_EQ(fate("/srv/0123abc/x"), Fate::kRemoved);
  EXPECT_EQ(fate("/srv/debian-12/x"), Fate::kRemoved);
  EXPECT_EQ(fate(absl::StrCat("/srv/", system.nodename, "/x")), Fate::kRemoved);
  EXPECT_EQ(fate(absl::StrCat("/srv/", system.release, "/x")), Fate::kRemoved);
  EXPECT_EQ(fate(absl::StrCat("/srv/c/", *boot, "/x")), Fate::kAges);
  // The next boot has another ID.
  EXPECT_EQ(fate(absl::StrCat("/srv/b/", *boot, "/x")), Fate::kStays);
}

TEST(Tmpfiles, GibberishIsLeftOut) {
  for (const char* text :
       {"D", "D tmp", "\"", "D \"/tmp", "\\", "D /", "R %", "\xff\xfe /tmp"}) {
    EXPECT_EQ(FateOf(text, "/srv/x"), Fate::kStays) << text;
  }
}

TEST(Tmpfiles, DirectoriesThatABootMakes) {
  TmpfilesRules rules;
  rules.Add("d /run/a/b 0755 root root -\nD /run/c\nR /run/d\n", "x.conf");
  EXPECT_TRUE(rules.MakesDirectory("/run/a/b"));
  EXPECT_TRUE(rules.MakesDirectory("/run/a"));
  EXPECT_TRUE(rules.MakesDirectory("/run/c"));
  EXPECT_FALSE(rules.MakesDirectory("/run/a/b/c"));
  EXPECT_FALSE(rules.MakesDirectory("/run/d"));
}

TEST(Tmpfiles, FilesOfTheAdministratorHideThoseOfTheSystem) {
  TempDirectory root;
  const auto add = [&root](const std::string& path, const std::string& text) {
    const size_t slash = path.rfind('/');
    auto directory =
        EnsureDirectories(absl::StrCat(root.path(), path.substr(0, slash)));
    ASSERT_TRUE(directory.ok());
    ASSERT_TRUE(
        ReplaceFileAt(directory->get(), path.substr(slash + 1), text).ok());
  };
  add("/usr/lib/tmpfiles.d/tmp.conf", "D /tmp\n");
  add("/usr/lib/tmpfiles.d/var.conf", "D /var/x\n");
  add("/usr/lib/tmpfiles.d/var.conf.bak", "D /var/y\n");
  add("/etc/tmpfiles.d/tmp.conf", "\n");
  auto read = TmpfilesRules::Read(root.path());
  ASSERT_TRUE(read.ok()) << read.status();
  const TmpfilesRules& rules = *read;
  EXPECT_EQ(rules.FateOf("/tmp/x").fate, Fate::kStays);
  EXPECT_EQ(rules.FateOf("/var/x/y").fate, Fate::kRemoved);
  EXPECT_EQ(rules.FateOf("/var/y/z").fate, Fate::kStays);
  EXPECT_EQ(TmpfilesRules::Read("/no/such")->FateOf("/tmp/x").fate,
            Fate::kStays);
  for (const auto& [call, name] :
       {std::pair{"open", "/etc/tmpfiles.d/."}, std::pair{"list", ""},
        std::pair{"open", "var.conf"}, std::pair{"read", "var.conf"}}) {
    const ScopedFileFault fault(FailWith(EMFILE, call, name));
    EXPECT_EQ(ErrorReasonOf(TmpfilesRules::Read(root.path()).status()),
              reason::kOverloaded)
        << call << " " << name;
  }
}

}  // namespace
}  // namespace daxsnap
