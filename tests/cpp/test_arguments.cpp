#include "arguments.h"

#include <doctest/doctest.h>

#include "support.h"

using namespace edgevit;
using namespace edgevit::test;

namespace {

Command parse(std::vector<const char*> words) {
    words.insert(words.begin(), "edgevit-harness");
    return parse_command_line(static_cast<int>(words.size()), words.data());
}

std::string refusal(const std::vector<const char*>& words) {
    return message_of<InputError>([&] { parse(words); });
}

}  // namespace

TEST_CASE("options and their defaults") {
    const Request a = *parse({"--artifact", "A", "--data", "D", "--out", "O"}).run;
    CHECK(a.artifact == "A");
    CHECK(a.threads == 1);
    CHECK(a.warmup == 10);
    CHECK_FALSE(a.limit);
    const Request b = *parse({"--artifact", "A", "--data", "D", "--out", "O", "--threads", "4",
                              "--limit=7", "--plan-cache", "P"})
                           .run;
    CHECK(b.threads == 4);
    CHECK(b.limit == 7);
    CHECK(b.runtime_options == RuntimeOptions{{"plan_cache", "P"}});
    CHECK(a.runtime_options.empty());
    CHECK(backend_options(b).runtime_options == b.runtime_options);
    CHECK(backend_options(b).threads == 4);
}

TEST_CASE("a runtime option is a name and a value, once") {
    const auto with = [](std::vector<const char*> extra) {
        extra.insert(extra.begin(), {"--artifact", "A", "--data", "D", "--out", "O"});
        return extra;
    };
    const auto options = [&](std::vector<const char*> extra) {
        return parse(with(std::move(extra))).run->runtime_options;
    };
    CHECK(options({"-O", "compute_units=cpu", "--runtime-option", "plan_cache=a=b c"}) ==
          RuntimeOptions{{"compute_units", "cpu"}, {"plan_cache", "a=b c"}});
    CHECK(options({"-O", "k="}) == RuntimeOptions{{"k", ""}});
    CHECK(options({"--compute-units", "cpu"}) == RuntimeOptions{{"compute_units", "cpu"}});
    CHECK(options({"--runtime-option", "a=1", "--runtime-option", "b=x=y", "--quiet"}) ==
          RuntimeOptions{{"a", "1"}, {"b", "x=y"}});
    CHECK(contains(refusal(with({"-O", "a"})), "'a' must be KEY=VALUE"));
    CHECK(contains(refusal(with({"--runtime-option", "=1"})), "'=1' must be KEY=VALUE"));
    CHECK(contains(refusal(with({"-O", "k=1", "-O", "k=2"})), "'k' is given twice"));
    CHECK(contains(refusal(with({"--compute-units", "cpu", "-O", "compute_units=all"})),
                   "'compute_units' is given twice"));
    CHECK(contains(parse({"--help"}).text, "--runtime-option"));
}

TEST_CASE("a request file stands for all other options") {
    const TemporaryFolder folder;
    const std::string file = folder / "run.json";
    write_text(file, R"({"schema_version": 1, "kind": "edgevit-request",
                         "artifact": "A", "data": "D", "out": "O", "threads": 3})");
    CHECK(parse({"--request", file.c_str()}).run->threads == 3);
    CHECK(contains(refusal({"--request", file.c_str(), "--threads", "2"}), "stands alone"));
    CHECK(parse({"--request", file.c_str(), "--quiet"}).run->quiet);
    CHECK(contains(refusal({"--request", file.c_str(), "--quiet", "-O", "k=v"}), "stands alone"));
    CHECK(contains(refusal({"--request", (file + "x").c_str()}), "run.jsonx"));
}

TEST_CASE("wrong usage is refused, never guessed at") {
    CHECK(contains(refusal({"--artifact", "A", "--data", "D"}), "--out is required"));
    CHECK(contains(refusal({"--artifact", "A", "--data", "D", "--out", "O", "--thread", "2"}),
                   "--thread"));
    CHECK(contains(refusal({"--artifact", "A", "--data", "D", "--out", "O", "extra"}), "extra"));
    CHECK(contains(refusal({"--artifact", "A", "--data", "D", "--out", "O", "--threads", "0"}),
                   "--threads"));
    CHECK(contains(refusal({"--artifact", "A", "--data", "D", "--out", "O", "--threads", "two"}),
                   "--threads"));
    CHECK(contains(refusal({"--artifact", "A", "--data", "D", "--out", "O", "--limit", "-1"}),
                   "--limit"));
}

TEST_CASE("a long run and an early stop are asked for with all that belongs to them") {
    const auto with = [](std::vector<const char*> extra) {
        extra.insert(extra.begin(), {"--artifact", "A", "--data", "D", "--out", "O"});
        return extra;
    };
    const auto long_run = [&](std::vector<const char*> extra) {
        return long_run_options(*parse(with(std::move(extra))).run);
    };
    CHECK_FALSE(long_run({}));
    CHECK_FALSE(parse(with({})).run->early_stop);
    const auto timed = *long_run({"--duration", "90", "--bucket", "5"});
    CHECK(timed.min_duration_s == 90);
    CHECK(timed.bucket_s == 5);
    CHECK(timed.min_samples == 0);
    const auto mlperf = *long_run({"--mlperf"});
    CHECK(mlperf.min_duration_s == 60);
    CHECK(mlperf.min_samples == 1024);
    CHECK(long_run({"--mlperf", "--duration", "300"})->min_duration_s == 300);
    const auto limits = *parse(with({"--early-stop", "--max-drop", "0.5", "--min-agreement", "99"}))
                             .run->early_stop;
    CHECK(limits.max_drop_points == 0.5);
    CHECK(limits.min_agreement_percent == 99);
    CHECK(contains(refusal(with({"--bucket", "5"})), "--bucket needs"));
    CHECK(contains(refusal(with({"--early-stop", "--max-drop", "1"})), "go together"));
    CHECK(contains(refusal(with({"--max-drop", "1"})), "go together"));
    for (const char* seconds : {"0", "-1", "nan", "inf", "4000", "1h"}) {
        CHECK(contains(refusal(with({"--duration", seconds})), "--duration"));
    }
}

TEST_CASE("help and version are printed, not run") {
    CHECK(contains(parse({"--help"}).text, "--artifact"));
    CHECK(contains(parse({"--help"}).text, "Exit codes"));
    CHECK_FALSE(parse({"--version"}).run);
}
