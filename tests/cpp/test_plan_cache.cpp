#include "plan_cache.h"

#include <doctest/doctest.h>

#include "support.h"

using namespace edgevit;
using namespace edgevit::tensorrt;
using namespace edgevit::test;

namespace {

const PlanKey kKey = {std::string(64, 'a'), "Orin", "8.7", "10.3.0", "12.6", "8", "settings"};
const Bytes kPlan = {1, 2, 3, 4};

}  // namespace

TEST_CASE("a plan is found again for exactly the key it was stored for") {
    const TemporaryFolder folder;
    const PlanCache cache(folder.path());
    CHECK_FALSE(cache.find(kKey));
    cache.store(kKey, kPlan);
    CHECK(cache.find(kKey) == kPlan);
    for (std::string PlanKey::*part :
         {&PlanKey::onnx_sha256, &PlanKey::device, &PlanKey::compute_capability, &PlanKey::tensorrt,
          &PlanKey::cuda_driver, &PlanKey::multiprocessors, &PlanKey::settings}) {
        PlanKey other = kKey;
        (other.*part).back() ^= 1;
        CHECK_FALSE(cache.find(other));
    }
    PlanKey newer = kKey;
    newer.tensorrt = "11.4.1";
    cache.store(newer, Bytes{5});
    CHECK(cache.find(newer) == Bytes{5});
    CHECK_FALSE(cache.find(kKey));
}

TEST_CASE("a damaged plan or record is not used") {
    const TemporaryFolder folder;
    const PlanCache cache(folder.path());
    const fs::path plan = folder / (kKey.onnx_sha256 + ".plan");
    const fs::path record = folder / (kKey.onnx_sha256 + ".json");
    const auto damaged = [&](const fs::path& path, const std::string& text) {
        cache.store(kKey, kPlan);
        REQUIRE(cache.find(kKey));
        write_text(path, text);
        return !cache.find(kKey);
    };
    cache.store(kKey, kPlan);
    const json good = json::parse(read_text(record));
    CHECK(damaged(plan, "\x01\x02\x03"));
    CHECK(damaged(plan, ""));
    CHECK(damaged(record, ""));
    CHECK(damaged(record, "{"));
    CHECK(damaged(record, "[]"));
    CHECK(damaged(record, std::string(70 << 10, ' ')));
    for (const auto& [key, value] : good.items()) {
        CAPTURE(key);
        json changed = good;
        changed.erase(key);
        CHECK(damaged(record, changed.dump()));
        changed[key] = value.is_string() ? json(7) : json("text");
        CHECK(damaged(record, changed.dump()));
    }
    json newer = good;
    newer["schema_version"] = 1 + good["schema_version"].get<int>();
    CHECK(damaged(record, newer.dump()));
    cache.store(kKey, kPlan);
    fs::remove(plan);
    CHECK_FALSE(cache.find(kKey));
}

TEST_CASE("storing leaves a plan, its record and nothing else") {
    const TemporaryFolder folder;
    PlanCache(folder.path()).store(kKey, kPlan);
    CHECK(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()) == 2);
    const std::string missing = message_of<InputError>([&] { PlanCache cache(folder / "none"); });
    CHECK(contains(missing, "mkdir -m 700"));
}
