#include <doctest/doctest.h>
#include <sys/stat.h>

#include "support.h"

using namespace edgevit;
using namespace edgevit::test;

TEST_CASE("SHA-256 gives the published digests") {
    // FIPS 180-4 examples and NIST's million-letter vector.
    CHECK(sha256_hex("") == "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855");
    CHECK(sha256_hex("abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
    CHECK(sha256_hex("abcdbcdecdefdefgefghfghighijhijkijkljklmklmnlmnomnopnopq") ==
          "248d6a61d20638b8e5c026930c3e6039a33ce45964ff2167f6ecedd419db06c1");
    CHECK(sha256_hex(std::string(1000000, 'a')) ==
          "cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0");
}

TEST_CASE("SHA-256 does not depend on how the bytes are cut up") {
    const std::string text(200, 'x');
    for (std::size_t cut = 0; cut <= text.size(); ++cut) {
        Sha256 hash;
        hash.update(text.substr(0, cut));
        hash.update(text.substr(cut));
        CHECK(hash.finish() == sha256_hex(text));
    }
}

TEST_CASE("a file's digest is that of its bytes") {
    const TemporaryFolder folder;
    const std::string text(200000, 'q');
    CHECK(sha256_file(write_text(folder / "f", text)) == sha256_hex(text));
    CHECK_THROWS_AS(sha256_file(folder / "missing"), InputError);
    CHECK_THROWS_AS(sha256_file(folder.path()), InputError);
}

TEST_CASE("a folder's digest is that of the list of its files") {
    const TemporaryFolder folder;
    CHECK(sha256_tree(folder.path()) == sha256_hex(""));
    write_text(folder / "b", "second");
    write_text(folder / "a/c.bin", "inner");
    write_text(folder / "a.bin", "first");
    write_text(folder / ".hidden", "");
    fs::create_directories(folder / "empty");
    // '.' comes before '/' among the bytes, so a.bin before what is in a/.
    const std::string list = sha256_hex("") + "  .hidden\n" + sha256_hex("first") + "  a.bin\n" +
                             sha256_hex("inner") + "  a/c.bin\n" + sha256_hex("second") + "  b\n";
    CHECK(sha256_tree(folder.path()) == sha256_hex(list));
    CHECK(sha256_tree(folder.path() / "") == sha256_hex(list));
    CHECK_THROWS_AS(sha256_tree(folder / "missing"), InputError);
}

TEST_CASE("what cannot be part of a folder artifact is named") {
    const auto refused = [](const fs::path& path) {
        return message_of<InputError>([&] { sha256_tree(path); });
    };
    const TemporaryFolder folder;
    write_text(folder / "f", "text");
    fs::create_symlink("f", folder / "to-file");
    CHECK(contains(refused(folder.path()), "to-file: a link or special file"));
    fs::remove(folder / "to-file");
    fs::create_directory_symlink(".", folder / "to-folder");
    CHECK(contains(refused(folder.path()), "to-folder: a link or special file"));
    fs::remove(folder / "to-folder");
    REQUIRE(::mkfifo((folder / "pipe").c_str(), 0600) == 0);
    CHECK(contains(refused(folder.path()), "pipe: a link or special file"));
    fs::remove(folder / "pipe");
    write_text(folder / "two\nlines", "");
    CHECK(contains(refused(folder.path()), "line break in its name"));
}

TEST_CASE("a folder artifact is bounded in depth and entries") {
    const TemporaryFolder folder;
    fs::path deep = folder.path();
    for (int i = 0; i < 16; ++i) {
        deep /= "d";
    }
    write_text(deep / "file", "at the bottom");
    CHECK(sha256_tree(folder.path()).size() == 64);
    fs::create_directory(deep / "d");
    CHECK(contains(message_of<InputError>([&] { sha256_tree(folder.path()); }),
                   "more than 16 folders below"));

    const TemporaryFolder wide;
    for (int i = 0; i < 10000; ++i) {
        write_text(wide / std::to_string(i), "");
    }
    CHECK(sha256_tree(wide.path()).size() == 64);
    write_text(wide / "one more", "");
    CHECK(contains(message_of<InputError>([&] { sha256_tree(wide.path()); }),
                   "more than 10000 files"));
}

TEST_CASE("a sha256 is 64 lower-case hexadecimal digits") {
    CHECK(is_sha256(std::string(64, 'a')));
    CHECK_FALSE(is_sha256(std::string(64, 'A')));
    CHECK_FALSE(is_sha256(std::string(63, 'a')));
}
