#include "core/bytes.h"

#include <doctest/doctest.h>

#include "support.h"

using namespace edgevit;
using namespace edgevit::test;

TEST_CASE("an atomic file appears on commit and not before") {
    const TemporaryFolder folder;
    {
        AtomicFile file(folder / "out");
        file.write("abc", 3);
        CHECK_FALSE(fs::exists(folder / "out"));
        file.commit();
    }
    CHECK(read_text(folder / "out") == "abc");
    CHECK(std::distance(fs::directory_iterator(folder.path()), fs::directory_iterator()) == 1);
}

TEST_CASE("an atomic file that is given up leaves nothing") {
    const TemporaryFolder folder;
    { AtomicFile(folder / "out").write("abc", 3); }
    CHECK(fs::is_empty(folder.path()));
    CHECK_THROWS_AS(AtomicFile(folder / "no" / "out"), InputError);
    CHECK_THROWS_AS(AtomicFile(folder.path()), InputError);
}

TEST_CASE("reading a file has a limit and a reason") {
    const TemporaryFolder folder;
    write_text(folder / "f", "0123456789");
    CHECK(read_file(folder / "f", 10).size() == 10);
    CHECK(contains(message_of<InputError>([&] { read_file(folder / "f", 9); }),
                   "over the limit of 9"));
    CHECK(contains(message_of<InputError>([&] { read_file(folder / "g", 9); }), "No such file"));
    CHECK(contains(message_of<InputError>([&] { read_file(folder.path(), 9); }), "is a folder"));
}
