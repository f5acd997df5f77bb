// SHA-256 (FIPS 180-4). Names artifacts, programs and image sets.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>

namespace edgevit {

class Sha256 {
  public:
    void update(const void* data, std::size_t size_bytes);
    void update(std::string_view text) { update(text.data(), text.size()); }

    // The digest in 64 lower-case hexadecimal digits. The object must not be used afterwards.
    std::string finish();

  private:
    void compress(const std::uint8_t* block);

    std::array<std::uint32_t, 8> state_ = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
                                           0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};
    std::array<std::uint8_t, 64> block_ = {};
    std::size_t filled_ = 0;
    std::uint64_t total_bytes_ = 0;
};

std::string sha256_hex(std::string_view text);

// Raises InputError when the file cannot be read.
std::string sha256_file(const std::filesystem::path& path);

// Of a folder: the sha256 of the text that has, for every file below it, sorted by the bytes of its
// relative path, one line "<sha256 of the file>  <path>\n" (what sha256sum prints). Raises
// InputError naming what cannot be read, is neither file nor folder (a link, too) or has a line
// break in its name, and for more than 10,000 entries or folders more than 16 deep.
std::string sha256_tree(const std::filesystem::path& folder);

// True for 64 lower-case hexadecimal digits.
bool is_sha256(std::string_view text);

}  // namespace edgevit
