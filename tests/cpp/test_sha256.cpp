#include <doctest/doctest.h>

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

TEST_CASE("a sha256 is 64 lower-case hexadecimal digits") {
    CHECK(is_sha256(std::string(64, 'a')));
    CHECK_FALSE(is_sha256(std::string(64, 'A')));
    CHECK_FALSE(is_sha256(std::string(63, 'a')));
}
