// The JSON that asks for a run: what it may say, and what is refused by the name of its key.
#include "request.h"

#include <doctest/doctest.h>

#include "support.h"

using namespace edgevit;
using namespace edgevit::test;

namespace {

const json kLeast = {{"schema_version", 1},
                     {"kind", "edgevit-request"},
                     {"artifact", "A"},
                     {"data", "D"},
                     {"out", "O"}};

Request parse(const json& document) { return parse_request(document.dump(), "run.json"); }

json with(const json& changes) {
    json document = kLeast;
    document.update(changes);
    return document;
}

std::string refusal(const json& changes) {
    return message_of<InputError>([&] { parse(with(changes)); });
}

std::string refusal_of_text(const std::string& text) {
    return message_of<InputError>([&] { parse_request(text, "run.json"); });
}

}  // namespace

TEST_CASE("a request says where, and the rest has defaults") {
    const Request request = parse(kLeast);
    CHECK(request.artifact == "A");
    CHECK(request.data == "D");
    CHECK(request.out == "O");
    CHECK(request.reference.empty());
    CHECK(request.runtime_options.empty());
    CHECK(request.threads == 1);
    CHECK(request.warmup == 10);
    CHECK_FALSE(request.limit);
    CHECK_FALSE(request.early_stop);
    CHECK_FALSE(request.quiet);
    CHECK_FALSE(long_run_options(request));
    json nulls = kLeast;
    for (const char* key :
         {"leave_out", "reference", "logits", "dump_inputs", "profile", "backend", "runtime",
          "runtime_options", "limit", "duration_s", "bucket_s", "early_stop"}) {
        nulls[key] = nullptr;
    }
    CHECK(parse(nulls).logits.empty());
    CHECK_FALSE(parse(nulls).limit);
}

TEST_CASE("every key of a request arrives") {
    const Request request = parse(
        with({{"reference", "R"},
              {"logits", "L"},
              {"dump_inputs", "I"},
              {"profile", "P"},
              {"backend", "coreml"},
              {"runtime", "lib.so"},
              {"runtime_options", {{"compute_units", "cpu-gpu"}, {"plan_cache", "plans \"ü\""}}},
              {"threads", 4},
              {"warmup", 0},
              {"limit", 7},
              {"duration_s", 90},
              {"bucket_s", 2.5},
              {"mlperf", true},
              {"early_stop", {{"max_drop", -0.5}, {"min_agreement", 99}}}}));
    CHECK(request.reference == "R");
    CHECK(request.logits == "L");
    CHECK(request.dump_inputs == "I");
    CHECK(request.profile == "P");
    CHECK(request.backend == "coreml");
    CHECK(request.threads == 4);
    CHECK(request.warmup == 0);
    CHECK(request.limit == 7);
    CHECK(request.early_stop->max_drop_points == -0.5);
    CHECK(request.early_stop->min_agreement_percent == 99);
    const BackendOptions options = backend_options(request);
    CHECK(options.threads == 4);
    CHECK(options.runtime_library == "lib.so");
    CHECK(options.runtime_options ==
          RuntimeOptions{{"compute_units", "cpu-gpu"}, {"plan_cache", "plans \"ü\""}});
    const LongRunOptions long_run = *long_run_options(request);
    CHECK(long_run.min_duration_s == 90);
    CHECK(long_run.bucket_s == 2.5);
    CHECK(long_run.min_samples == 1024);
}

TEST_CASE("a key that is missing, unknown or twice there is named") {
    for (const auto& [key, value] : kLeast.items()) {
        json document = kLeast;
        document.erase(key);
        CHECK(message_of<InputError>([&] { parse(document); }) ==
              "run.json: " + key + " is missing");
    }
    CHECK(refusal({{"thread", 2}}) == "run.json: thread is no key of a request");
    CHECK(refusal({{"quiet", true}}) == "run.json: quiet is no key of a request");
    CHECK(contains(refusal({{"early_stop", {{"max_drop", 1}}}}),
                   "early_stop.min_agreement is missing"));
    CHECK(contains(refusal({{"early_stop", {{"max_drop", 1}, {"min_agreement", 1}, {"more", 1}}}}),
                   "early_stop.more is no key"));
    std::string text = kLeast.dump();
    text.insert(1, R"("data": "other",)");
    CHECK(contains(refusal_of_text(text), "the key 'data' occurs twice"));
    text = with({{"runtime_options", {{"k", "1"}}}}).dump();
    text.replace(text.find(R"("k":"1")"), 7, R"("k":"1","k":"2")");
    CHECK(contains(refusal_of_text(text), "the key 'k' occurs twice"));
}

TEST_CASE("a value of another type is named") {
    for (const char* key : {"artifact", "data", "out", "reference", "logits", "dump_inputs",
                            "profile", "backend", "runtime"}) {
        for (const json& wrong : {json(1), json(true), json::array(), json::object()}) {
            CHECK(contains(refusal({{key, wrong}}), std::string(key) + " must be a string"));
        }
        CHECK(contains(refusal({{key, ""}}), std::string(key) + " must not be empty"));
        CHECK(contains(refusal({{key, std::string("a\0b", 3)}}), "zero byte"));
    }
    for (const char* key : {"artifact", "data", "out", "threads", "warmup", "mlperf"}) {
        CHECK(contains(refusal({{key, nullptr}}), std::string(key) + " must be"));
    }
    for (const char* key : {"threads", "warmup", "limit"}) {
        for (const json& wrong : {json("2"), json(true), json(1.5), json::array()}) {
            CHECK(contains(refusal({{key, wrong}}), std::string(key) + " must be an integer"));
        }
    }
    for (const char* key : {"duration_s", "bucket_s"}) {
        for (const json& wrong : {json("2"), json(true), json::array()}) {
            CHECK(contains(refusal({{key, wrong}}), std::string(key) + " must be a finite number"));
        }
    }
    for (const json& wrong : {json("true"), json(1), json(nullptr)}) {
        CHECK(contains(refusal({{"mlperf", wrong}}), "mlperf must be true or false"));
    }
    CHECK(contains(refusal({{"runtime_options", json::array()}}), "runtime_options must be an"));
    CHECK(contains(refusal({{"runtime_options", {{"strides", 4}}}}),
                   "runtime_options.strides must be a string"));
    CHECK(contains(refusal({{"early_stop", true}}), "early_stop must be an object"));
}

TEST_CASE("a value out of range is named") {
    const std::vector<std::pair<const char*, std::vector<json>>> wrong = {
        {"threads", {0, -1, 257, 18446744073709551615U}},
        {"warmup", {-1, 100001}},
        {"limit", {0, -1, 1000000001}},
        {"duration_s", {0, -1, 0.0001, 3600.5, 1e300}},
        {"bucket_s", {0, -1, 3601}},
    };
    for (const auto& [key, values] : wrong) {
        for (const json& value : values) {
            CHECK(contains(refusal({{"mlperf", true}, {key, value}}), std::string(key) + " must"));
        }
    }
    CHECK(contains(refusal({{"early_stop", {{"max_drop", 101}, {"min_agreement", 1}}}}),
                   "early_stop.max_drop must be a number from -100.0 to 100.0"));
    CHECK(contains(refusal({{"bucket_s", 1}}), "bucket_s needs duration_s"));
    CHECK_NOTHROW(parse(with({{"bucket_s", 1}, {"mlperf", true}})));
}

TEST_CASE("a file of another kind or version is refused") {
    CHECK(contains(refusal({{"kind", "edgevit-result"}}), "kind is 'edgevit-result'"));
    CHECK(contains(refusal({{"schema_version", 2}, {"new_key", 1}}),
                   "schema_version is 2, this program reads up to 1"));
    CHECK(contains(refusal({{"schema_version", "1"}}), "schema_version must be an integer"));
    CHECK(contains(refusal({{"schema_version", 0}}), "schema_version must be an integer"));
}

TEST_CASE("text that is no request is refused") {
    for (const std::string& text :
         {std::string(), std::string("{"), std::string("{}{}"), std::string("{'a': 1}"),
          std::string("\xff\xfe"), std::string(100000, '['), std::string("{\"a\": NaN}"),
          std::string("{\"\xff\": 1}"), std::string(R"({"a": "\udc80"})")}) {
        CHECK(contains(refusal_of_text(text), "run.json: not valid JSON"));
    }
    for (const char* text : {"[]", "1", "null", "\"text\""}) {
        CHECK(contains(refusal_of_text(text), "run.json: the document must be an object"));
    }
    const TemporaryFolder folder;
    CHECK(message_of<InputError>([&] { load_request(folder / "none.json"); }) != "");
    CHECK(message_of<InputError>([&] { load_request(folder.path()); }) != "");
    write_text(folder / "large.json", kLeast.dump() + std::string(1 << 20, ' '));
    CHECK(contains(message_of<InputError>([&] { load_request(folder / "large.json"); }),
                   "over the limit"));
}

TEST_CASE("runtime options that the back-end does not take are refused") {
    const Manifest manifest = parse_manifest(manifest_json(3).dump(), "m");
    const auto refused = [&](const json& given) {
        const Request request = parse(with({{"runtime_options", given}}));
        return message_of<InputError>(
            [&] { open_backend("null", manifest, backend_options(request)); });
    };
    CHECK(refused(json::object()) == "");
    CHECK(contains(refused({{"strides", "4"}}), "null back-end takes no runtime option 'strides'"));
    CHECK(contains(refused({{"", "4"}}), "null back-end takes no runtime option ''"));
}
