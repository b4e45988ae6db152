// SPDX-License-Identifier: Apache-2.0
#include "client/snapctl/output.h"
#include "base/utf8.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include <future>
#include <nlohmann/json.hpp>
#include <sstream>
#include <utility>

#include "client/snapctl/progress.h"
#include "daxsnap/v1/snapshot.pb.h"

namespace daxsnap::snapctl {
namespace {

TEST(FormatTest, BytesHaveBinaryUnitsAndOneDecimal) {
  EXPECT_EQ(FormatBytes(0), "0 B");
  EXPECT_EQ(FormatBytes(1023), "1023 B");
  EXPECT_EQ(FormatBytes(1024), "1.0 KiB");
  EXPECT_EQ(FormatBytes(1024 * 1024 - 1), "1.0 MiB");
  EXPECT_EQ(FormatBytes(268'435'456 + 200'000), "256.2 MiB");
  EXPECT_EQ(FormatBytes(UINT64_MAX), "16.0 EiB");
}

TEST(FormatTest, PagesAreBytesAndCount) {
  EXPECT_EQ(FormatPages(1, 4096), "4.0 KiB (1 page)");
  EXPECT_EQ(FormatPages(65536, 4096), "256.0 MiB (65536 pages)");
}

TEST(FormatTest, TimesHaveTheUnitThatFits) {
  EXPECT_EQ(FormatMicroseconds(870), "870 us");
  EXPECT_EQ(FormatMicroseconds(14'230), "14.2 ms");
  EXPECT_EQ(FormatMicroseconds(3'450'000), "3.45 s");
  google::protobuf::Timestamp time;
  EXPECT_EQ(FormatTime(time), "-");
  time.set_seconds(1'738'367'999);
  EXPECT_EQ(FormatTime(time), "2025-01-31 23:59:59 UTC");
}

TEST(FormatTest, ControlCharactersDoNotReachTheTerminal) {
  EXPECT_EQ(ToPrintableUtf8("a\x1b[31m\nb\x7f"), R"(a\x1b[31m\x0ab\x7f)");
}

TEST(TableTest, ColumnsAreAsWideAsTheirWidestCell) {
  Table table({{"NAME"}, {"SIZE", Align::kRight}});
  table.AddRow({"a", "1.0 KiB"});
  table.AddRow({"longer", "2 B"});
  std::ostringstream out;
  table.Print(out);
  EXPECT_EQ(out.str(),
            "NAME       SIZE\n"
            "a       1.0 KiB\n"
            "longer      2 B\n");
}

TEST(FieldsTest, ValuesAreAligned) {
  Fields fields;
  fields.Add("a", "1");
  fields.Add("long key", "2");
  std::ostringstream out;
  fields.Print(out);
  EXPECT_EQ(out.str(), "a         1\nlong key  2\n");
}

TEST(JsonTest, NumbersAreNumbersEnumsAreShortAndZeroesAreThere) {
  v1::Snapshot snapshot;
  snapshot.set_name("a");
  snapshot.set_mode(v1::SNAPSHOT_MODE_BY_REFERENCE);
  snapshot.mutable_pages()->set_by_reference(1ULL << 60);
  snapshot.mutable_create_time()->set_seconds(1'738'367'999);
  (*snapshot.mutable_labels())["z"] = "1";
  (*snapshot.mutable_labels())["b"] = "2";
  const nlohmann::ordered_json json = ToJson(snapshot);
  EXPECT_EQ(json["mode"], "BY_REFERENCE");
  EXPECT_EQ(json["pages"]["by_reference"].get<std::uint64_t>(), 1ULL << 60);
  EXPECT_EQ(json["pages"]["copied"], 0);
  EXPECT_EQ(json["left_running"], false);
  EXPECT_EQ(json["create_time"], "2025-01-31T23:59:59Z");
  EXPECT_EQ(json["labels"].dump(), R"({"b":"2","z":"1"})");
  EXPECT_FALSE(json.contains("times")) << "a message that is not set";
}

TEST(JsonTest, ValuesOfANewerSnapdAreKept) {
  v1::Snapshot snapshot;
  snapshot.set_mode(static_cast<v1::SnapshotMode>(99));
  EXPECT_EQ(ToJson(snapshot)["mode"], 99);
}

TEST(JsonTest, OneofHasOnlyWhatIsSet) {
  v1::CreateSnapshotResponse response;
  response.mutable_progress()->set_pages_done(3);
  const nlohmann::ordered_json json = ToJson(response);
  EXPECT_EQ(json["progress"]["pages_done"], 3);
  EXPECT_FALSE(json.contains("result"));
}

TEST(ProgressTest, SaysPhaseAndPages) {
  v1::Progress progress;
  progress.set_phase(v1::PROGRESS_PHASE_DUMPING);
  EXPECT_EQ(DescribeProgress(progress), "dumping");
  progress.set_pages_done(5);
  progress.set_pages_total(10);
  EXPECT_EQ(DescribeProgress(progress), "dumping, 5 of 10 pages");
}

// A terminal that tells when something was written on it.
class Terminal : public std::stringbuf {
 public:
  void AwaitWrite() { written_.get_future().wait(); }

 private:
  int sync() override {
    if (!std::exchange(told_, true)) written_.set_value();
    return 0;
  }

  std::promise<void> written_;
  bool told_ = false;
};

TEST(ProgressTest, LineAppearsWhenItTakesLongAndGoesAway) {
  Terminal terminal;
  std::ostream err(&terminal);
  Context context;
  context.err = &err;
  context.show_progress = true;
  {
    ProgressLine line(context, "waiting");
    line.Update("attaching dax0.0");
    terminal.AwaitWrite();
  }
  // The first and the last of what may be many.
  EXPECT_THAT(terminal.str(),
              testing::MatchesRegex("\r\033\\[Kattaching dax0\\.0, "
                                    "[0-9.]+ s.*\r\033\\[K"));
}

TEST(ProgressTest, NothingIsShownIfItIsQuickOrThereIsNoTerminal) {
  std::ostringstream err;
  Context context;
  context.err = &err;
  for (const bool terminal : {true, false}) {
    context.show_progress = terminal;
    const ProgressLine line(context, "detaching");
  }
  EXPECT_EQ(err.str(), "");
}

}  // namespace
}  // namespace daxsnap::snapctl
